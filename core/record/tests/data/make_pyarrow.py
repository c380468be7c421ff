# Made pyarrow.parquet beside it: python make_pyarrow.py pyarrow.parquet (pyarrow 26.0.1).
import datetime, decimal, sys
import pyarrow as pa, pyarrow.parquet as pq
rows = {
 "question": pa.array(["1+1?", "naïve ⟨x⟩", None]),
 "answer": pa.array(["2", "#### 7", ""], pa.large_string()),
 "level": pa.array([1, -2, 3], pa.int8()),
 "big": pa.array([2**63, 0, 7], pa.uint64()),
 "score": pa.array([0.1, float("nan"), 1e300]),
 "half": pa.array([0.5, 1.5, 2.5], pa.float32()),
 "ok": pa.array([True, False, None]),
 "messages": pa.array([[{"role": "user", "content": "hi"}], [], None], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
 "tokens": pa.array([[1, 2], [], [3]], pa.list_(pa.uint32())),
 "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
 "day": pa.array([datetime.date(2024, 2, 29)] * 3),
 "price": pa.array([decimal.Decimal("1.50")] * 3, pa.decimal128(8, 2)),
}
pq.write_table(pa.table(rows), sys.argv[1], compression="snappy", row_group_size=2)
