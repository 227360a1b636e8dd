package org.intel.openvino;

public final class Openvino {
  private Openvino() {}

  /** Spark NLP calls it to turn ONNX and TensorFlow models into OpenVINO's format on import; the C API has no writer. */
  public static void save_model(Model model, String path, boolean compress) {
    throw new UnsupportedOperationException("converting a model on import is not supported: convert it with prepare_model.py");
  }
}
