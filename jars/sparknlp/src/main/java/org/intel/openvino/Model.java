package org.intel.openvino;

import com.sun.jna.Pointer;

public final class Model extends NativeObject {
  Model(Pointer pointer) {
    super(pointer, OpenvinoC.API::ov_model_free);
  }
}
