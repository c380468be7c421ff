//! The device: its one stream, its kernels, its memory and cuBLAS.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Error, Result, Shape, Storage, Tensor, bail};
use cudarc::cublas::{result::gemm_strided_batched_ex, sys as blas};
use cudarc::driver::{CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr, ValidAsZeroBits, sys};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};

use crate::Param;

/// The kernels, in CUDA C++. They are compiled for the device when the first of them is launched.
const SOURCE: &str = concat!(
    include_str!("source/common.cuh"),
    include_str!("source/rows.cu"),
    include_str!("source/experts.cu"),
    include_str!("source/attention.cu"),
);

/// Dynamic shared memory that a block has without asking.
const SHARED: u32 = 48 << 10;

/// Uploads that are remembered. A pass needs a handful of them again and again: tokens, positions, segments.
const UPLOADS: usize = 16;

/// Launches a kernel: device, name, blocks (a number or three), threads of a block, bytes of shared memory; arguments.
/// Without blocks there is nothing to do. The arguments must be what the kernel takes.
macro_rules! launch {
    ($gpu:expr, $name:expr, $blocks:expr, $threads:expr, $shared:expr; $($argument:expr),* $(,)?) => {{
        let (grid, shared) = ($crate::cuda::gpu::Grid::from($blocks).0, $shared as u32);
        if grid.0 > 0 && grid.1 > 0 && grid.2 > 0 {
            let (function, stream) = ($gpu.kernel($name, shared)?, $gpu.stream());
            let mut builder = stream.launch_builder(&function);
            $(
                let argument = $argument;
                candle_core::cuda_backend::cudarc::driver::PushKernelArg::arg(&mut builder, &argument);
            )*
            let block_dim = ($threads as u32, 1, 1);
            let config = candle_core::cuda_backend::cudarc::driver::LaunchConfig {
                grid_dim: grid, block_dim, shared_mem_bytes: shared,
            };
            // SAFETY: the arguments are those of the kernel, and point to memory of the sizes that it was told.
            let launched = unsafe { builder.launch(config) };
            candle_core::cuda_backend::WrapErr::w(launched)?;
        }
    }};
}
pub(super) use launch;

/// The first NVIDIA GPU. All threads of the process share it and its one stream, so that work is done in the order in
/// which it was asked for.
///
/// # Errors
/// There is no GPU or no driver.
pub fn device() -> Result<Device> {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    if let Some(device) = DEVICE.get() {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(0)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: nothing runs on another stream.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda)?;
    Ok(DEVICE.get_or_init(|| device).clone())
}

/// Lets the driver keep freed memory for the next tensor instead of returning it at each download.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: plain calls of the driver, with places for what they write and read.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, stream.context().cu_device()).result().w()?;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast::<c_void>()).result().w()
    }
}

/// Whether the tensors are f32 on a GPU.
pub(super) fn on_gpu(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cuda() && tensor.dtype() == DType::F32)
}

/// A device with the manners of this module.
#[derive(Clone)]
pub(crate) struct Gpu(CudaDevice);

impl Gpu {
    /// The device of a tensor.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        Ok(Self(tensor.device().as_cuda_device()?.clone()))
    }

    /// Memory for `n` elements, not initialised.
    pub fn memory<T: DeviceRepr>(&self, n: usize) -> Result<CudaSlice<T>> {
        // SAFETY: whoever asks for memory has a kernel write it before another reads it.
        unsafe { self.0.alloc(n.max(1)) }
    }

    /// `n` zeros.
    pub fn zeros<T: DeviceRepr + ValidAsZeroBits>(&self, n: usize) -> Result<CudaSlice<T>> {
        self.0.alloc_zeros(n.max(1))
    }

    /// A copy of numbers on the device.
    pub fn upload<T: DeviceRepr + 'static>(&self, values: &[T]) -> Result<CudaSlice<T>> {
        if values.is_empty() {
            return self.memory(1);
        }
        self.0.clone_htod(values)
    }

    /// A copy of the device's numbers. The host waits for it.
    pub fn download<T: DeviceRepr>(&self, values: &CudaSlice<T>) -> Result<Vec<T>> {
        self.0.clone_dtoh(values)
    }

    /// A copy of numbers that several operations are told, one after another: it is made once.
    pub fn told(&self, values: &[u32]) -> Result<Arc<CudaSlice<u32>>> {
        type Upload = (Vec<u32>, Arc<CudaSlice<u32>>);
        static RECENT: Mutex<VecDeque<Upload>> = Mutex::new(VecDeque::new());
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slice)) = recent.iter().find(|(known, _)| known == values) {
            return Ok(slice.clone());
        }
        let slice = Arc::new(self.upload(values)?);
        recent.truncate(UPLOADS - 1);
        recent.push_front((values.to_vec(), slice.clone()));
        Ok(slice)
    }

    /// The tensor that some memory is.
    pub fn tensor(&self, memory: CudaSlice<f32>, shape: impl Into<Shape>) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage(memory)), shape, BackpropOp::none(), false)
    }

    pub fn storage(&self, memory: CudaSlice<f32>) -> CudaStorage {
        CudaStorage::wrap_cuda_slice(memory, self.0.clone())
    }

    /// The one stream.
    pub fn stream(&self) -> Arc<CudaStream> {
        self.0.cuda_stream()
    }

    /// A kernel by name, allowed as much shared memory as it asks for.
    pub fn kernel(&self, name: &str, shared: u32) -> Result<CudaFunction> {
        static COMPILED: OnceLock<std::result::Result<String, String>> = OnceLock::new();
        let compile = || {
            let stream = self.0.cuda_stream();
            let (major, minor) = stream.context().compute_capability().map_err(|error| error.to_string())?;
            let options = CompileOptions {
                options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
                ..CompileOptions::default()
            };
            compile_ptx_with_opts(SOURCE, options).map(|ptx| ptx.to_src()).map_err(|error| format!("{error:?}"))
        };
        let ptx = COMPILED.get_or_init(compile);
        let ptx = ptx.as_ref().map_err(|error| Error::Msg(format!("the GPU's kernels can't be compiled: {error}")))?;
        let function = self.0.get_or_load_custom_func(name, "kernels", ptx)?.into_cuda_function();
        if shared > SHARED {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, shared as i32).w()?;
        }
        Ok(function)
    }

    /// The elements rounded to bf16.
    pub fn rounded(&self, x: u64, n: usize) -> Result<CudaSlice<u16>> {
        let out = self.memory::<u16>(n)?;
        launch!(self, "to_bf16", blocks(n), 256, 0; x, at(&out), n as u64);
        Ok(out)
    }

    /// Row-major `c = a b`, or `c += a b`, for each of `batches`.
    pub(super) fn product(&self, (m, n, k): (usize, usize, usize), batches: usize, of: &Product) -> Result<()> {
        if m == 0 || n == 0 || batches == 0 || (k == 0 && of.accumulate) {
            return Ok(());
        }
        let int = |x: usize| i32::try_from(x).map_err(Error::wrap);
        let operation = |transposed: bool| match transposed {
            true => blas::cublasOperation_t::CUBLAS_OP_T,
            false => blas::cublasOperation_t::CUBLAS_OP_N,
        };
        let dtype = match of.dtype {
            DType::F32 => blas::cudaDataType_t::CUDA_R_32F,
            DType::BF16 => blas::cudaDataType_t::CUDA_R_16BF,
            other => bail!("a product of {other:?}"),
        };
        let (one, keep) = (1.0f32, if of.accumulate { 1.0f32 } else { 0.0 });
        // SAFETY: the caller's pointers and sizes. Column-major, it is the product of the transposes in the other order.
        unsafe {
            gemm_strided_batched_ex(
                *self.0.cublas_handle().handle(),
                operation(of.b.transposed),
                operation(of.a.transposed),
                int(n)?,
                int(m)?,
                int(k)?,
                (&raw const one).cast(),
                of.b.at as *const c_void,
                dtype,
                int(of.b.row.max(1))?,
                of.b.batch as i64,
                of.a.at as *const c_void,
                dtype,
                int(of.a.row.max(1))?,
                of.a.batch as i64,
                (&raw const keep).cast(),
                of.c.at as *mut c_void,
                blas::cudaDataType_t::CUDA_R_32F,
                int(of.c.row.max(1))?,
                of.c.batch as i64,
                int(batches)?,
                blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(Error::wrap)
    }
}

/// A matrix in memory: `row` elements from the begin of a row to the next one's, `batch` from one matrix to the next.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub at: u64,
    pub row: usize,
    pub batch: usize,
    /// Whether the product takes its transpose.
    pub transposed: bool,
}

impl Matrix {
    /// A single one.
    pub fn new(at: u64, row: usize) -> Self {
        Self { at, row, batch: 0, transposed: false }
    }

    #[must_use]
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
}

/// What a product reads, in `dtype`, and writes, in f32.
pub(super) struct Product {
    pub dtype: DType,
    pub a: Matrix,
    pub b: Matrix,
    pub c: Matrix,
    pub accumulate: bool,
}

/// Where some memory begins.
pub(super) fn at<T>(memory: &CudaSlice<T>) -> u64 {
    memory.device_ptr(memory.stream()).0
}

/// Where a contiguous tensor begins, in f32 or bf16.
pub(super) fn start(tensor: &Tensor) -> Result<u64> {
    let (guard, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((first, _))) = (&*guard, layout.contiguous_offsets()) else {
        bail!("an operation on the GPU reads contiguous tensors there, not {layout:?} on {:?}", tensor.device());
    };
    let begin = match tensor.dtype() {
        DType::F32 => at(storage.as_cuda_slice::<f32>()?),
        DType::BF16 => at(storage.as_cuda_slice::<half::bf16>()?),
        other => bail!("an operation on the GPU reads f32 and bf16, not {other:?}"),
    };
    Ok(begin + (first * tensor.dtype().size_in_bytes()) as u64)
}

/// What products read of a parameter.
pub(super) struct Weight {
    /// Kept while kernels that read it are enqueued.
    _value: Tensor,
    pub at: u64,
    pub dtype: DType,
}

impl Weight {
    pub fn of(param: &Param) -> Result<Self> {
        let value = param.compute_value()?;
        Ok(Self { at: start(&value)?, dtype: value.dtype(), _value: value })
    }

    /// The name of the kernel for it.
    pub fn kernel(&self, f32: &'static str, bf16: &'static str) -> &'static str {
        if self.dtype == DType::F32 { f32 } else { bf16 }
    }
}

/// The other factor of a product, in a parameter's dtype.
pub(super) struct Factor {
    _rounded: Option<CudaSlice<u16>>,
    pub at: u64,
    pub dtype: DType,
}

impl Factor {
    /// `n` elements of f32.
    pub fn of(gpu: &Gpu, x: u64, n: usize, dtype: DType) -> Result<Self> {
        if dtype == DType::F32 {
            return Ok(Self { _rounded: None, at: x, dtype });
        }
        let rounded = gpu.rounded(x, n)?;
        Ok(Self { at: at(&rounded), _rounded: Some(rounded), dtype })
    }
}

/// Blocks of 256 threads for `n` elements, of which a thread may have several.
pub(super) fn blocks(n: usize) -> u32 {
    n.div_ceil(256).min(4096) as u32
}

/// The blocks of a launch.
pub(super) struct Grid(pub (u32, u32, u32));

impl From<u32> for Grid {
    fn from(x: u32) -> Self {
        Self((x, 1, 1))
    }
}

impl From<usize> for Grid {
    fn from(x: usize) -> Self {
        Self((x as u32, 1, 1))
    }
}

impl From<(usize, usize, usize)> for Grid {
    fn from((x, y, z): (usize, usize, usize)) -> Self {
        Self((x as u32, y as u32, z as u32))
    }
}
