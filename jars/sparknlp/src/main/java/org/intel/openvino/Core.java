package org.intel.openvino;

import com.sun.jna.ptr.PointerByReference;
import java.util.LinkedHashMap;
import java.util.Map;

public final class Core extends NativeObject {
  public Core() {
    super(create().getValue(), OpenvinoC.API::ov_core_free);
  }

  private static PointerByReference create() {
    PointerByReference made = new PointerByReference();
    OpenvinoC.check(OpenvinoC.API.ov_core_create(made), "start");
    return made;
  }

  public Model read_model(String path) {
    PointerByReference made = new PointerByReference();
    OpenvinoC.check(OpenvinoC.API.ov_core_read_model(pointer, path, null, made), "read " + path);
    return new Model(made.getValue());
  }

  public CompiledModel compile_model(String path, String device, Map<String, String> properties) {
    Map<String, String> all = new LinkedHashMap<>(Settings.properties());
    all.putAll(properties);
    OpenvinoC.Property[] pairs = (OpenvinoC.Property[]) new OpenvinoC.Property().toArray(Math.max(1, all.size()));
    int at = 0;
    for (Map.Entry<String, String> entry : all.entrySet()) {
      pairs[at].key = entry.getKey();
      pairs[at].value = entry.getValue();
      pairs[at++].write();
    }
    PointerByReference made = new PointerByReference();
    int status =
        OpenvinoC.API.ov_core_compile_model_from_file_props(pointer, path, device, all.size(), pairs[0], made);
    OpenvinoC.check(status, "compile " + path + " with " + all);
    return new CompiledModel(this, made.getValue());
  }
}
