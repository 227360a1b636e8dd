package org.intel.openvino;

import com.sun.jna.Pointer;
import com.sun.jna.ptr.PointerByReference;

public final class CompiledModel extends NativeObject {
  private final Core core; // must outlive what it compiled
  // Spark NLP asks for a request per batch and drops it. One holds all activations in native memory, which the garbage
  // collector does not see filling up, so each thread keeps one and gets it again.
  private final ThreadLocal<InferRequest> ofThread = ThreadLocal.withInitial(this::create);

  CompiledModel(Core core, Pointer pointer) {
    super(pointer, OpenvinoC.API::ov_compiled_model_free);
    this.core = core;
  }

  public InferRequest create_infer_request() {
    return ofThread.get();
  }

  private InferRequest create() {
    PointerByReference made = new PointerByReference();
    OpenvinoC.check(OpenvinoC.API.ov_compiled_model_create_infer_request(pointer, made), "create an inference request");
    return new InferRequest(made.getValue());
  }
}
