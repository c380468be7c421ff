// What the compiler exports; transform.mjs gives these functions the names of the interface.
export { cabi_realloc, exportedConfigure, exportedSchema, exportedVerify } from "./plugin";
