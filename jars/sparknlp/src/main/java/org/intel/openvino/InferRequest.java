package org.intel.openvino;

import com.sun.jna.Pointer;
import com.sun.jna.ptr.PointerByReference;

public final class InferRequest extends NativeObject {
  InferRequest(Pointer pointer) {
    super(pointer, OpenvinoC.API::ov_infer_request_free);
  }

  public void set_tensor(String name, Tensor tensor) {
    OpenvinoC.check(OpenvinoC.API.ov_infer_request_set_tensor(pointer, name, tensor.pointer), "set input " + name);
  }

  public void infer() {
    OpenvinoC.check(OpenvinoC.API.ov_infer_request_infer(pointer), "run the model");
  }

  public Tensor get_tensor(String name) {
    PointerByReference made = new PointerByReference();
    OpenvinoC.check(OpenvinoC.API.ov_infer_request_get_tensor(pointer, name, made), "get output " + name);
    return new Tensor(made.getValue());
  }
}
