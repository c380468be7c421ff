// Gives the exported functions the names of the interface, which AssemblyScript can't write.
const NAMES = {
  exportedSchema: 'pipeline:plugin/config@0.1.0#schema',
  exportedConfigure: 'pipeline:plugin/config@0.1.0#configure',
  exportedVerify: 'pipeline:plugin/verify@0.1.0#verify',
};

export default class {
  afterCompile(module) {
    for (const [own, name] of Object.entries(NAMES)) {
      const { value } = this.binaryen.getExportInfo(module.getExport(own));
      module.removeExport(own);
      module.addFunctionExport(value, name);
    }
  }
}
