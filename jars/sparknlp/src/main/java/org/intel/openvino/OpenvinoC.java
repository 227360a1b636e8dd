package org.intel.openvino;

import com.sun.jna.Library;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.ptr.IntByReference;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import java.io.File;
import java.util.Arrays;
import java.util.Map;

/** The functions of libopenvino_c that this binding calls. */
interface OpenvinoC extends Library {
  /** ov_element_type_e. */
  int F32 = 4, I32 = 9, I64 = 10;

  OpenvinoC API = load();

  @Structure.FieldOrder({"rank", "dims"})
  class Shape extends Structure {
    public long rank;
    public Pointer dims;

    public static final class ByValue extends Shape implements Structure.ByValue {}
  }

  @Structure.FieldOrder({"key", "value"})
  class Property extends Structure {
    public String key;
    public String value;
  }

  String ov_get_error_info(int status);
  String ov_get_last_err_msg();
  int ov_core_create(PointerByReference core);
  void ov_core_free(Pointer core);
  int ov_core_read_model(Pointer core, String path, String weights, PointerByReference model);
  int ov_core_compile_model_from_file_props(
      Pointer core, String path, String device, long count, Property first, PointerByReference compiled);
  void ov_model_free(Pointer model);
  int ov_compiled_model_create_infer_request(Pointer compiled, PointerByReference request);
  void ov_compiled_model_free(Pointer compiled);
  int ov_infer_request_set_tensor(Pointer request, String name, Pointer tensor);
  int ov_infer_request_get_tensor(Pointer request, String name, PointerByReference tensor);
  int ov_infer_request_infer(Pointer request);
  void ov_infer_request_free(Pointer request);
  int ov_tensor_create(int type, Shape.ByValue shape, PointerByReference tensor);
  int ov_tensor_get_element_type(Pointer tensor, IntByReference type);
  int ov_tensor_get_size(Pointer tensor, LongByReference elements);
  int ov_tensor_data(Pointer tensor, PointerByReference data);
  void ov_tensor_free(Pointer tensor);

  static OpenvinoC load() {
    return Native.load(library(), OpenvinoC.class, Map.of(Library.OPTION_STRING_ENCODING, "UTF-8"));
  }

  private static String library() {
    String directory = Settings.get(Settings.LIBRARY);
    if (directory == null || !new File(directory).isDirectory()) return "openvino_c";
    String[] found = new File(directory).list((where, name) -> name.startsWith("libopenvino_c.so"));
    if (found == null || found.length == 0) throw new UnsatisfiedLinkError("no libopenvino_c.so in " + directory);
    Arrays.sort(found);
    return new File(directory, found[found.length - 1]).getAbsolutePath();
  }

  static void check(int status, String what) {
    if (status == 0) return;
    String last = API.ov_get_last_err_msg();
    String reason = last == null || last.isBlank() ? API.ov_get_error_info(status) : last;
    throw new IllegalStateException("OpenVINO cannot " + what + ": " + reason);
  }
}
