package org.intel.openvino;

import com.sun.jna.Memory;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.IntByReference;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import java.lang.ref.Reference;

public final class Tensor extends NativeObject {
  Tensor(Pointer pointer) {
    super(pointer, OpenvinoC.API::ov_tensor_free);
  }

  public Tensor(int[] shape, long[] values) {
    this(allocate(OpenvinoC.I64, shape, values.length));
    memory().write(0, values, 0, values.length);
  }

  public Tensor(int[] shape, int[] values) {
    this(allocate(OpenvinoC.I32, shape, values.length));
    memory().write(0, values, 0, values.length);
  }

  public Tensor(int[] shape, float[] values) {
    this(allocate(OpenvinoC.F32, shape, values.length));
    memory().write(0, values, 0, values.length);
  }

  private static Pointer allocate(int type, int[] shape, int values) {
    long wanted = 1;
    for (int size : shape) wanted *= size;
    if (wanted != values) throw new IllegalArgumentException("the shape holds " + wanted + " values, not " + values);
    PointerByReference made = new PointerByReference();
    try (Memory dims = new Memory(Native.LONG_SIZE * (long) Math.max(1, shape.length))) {
      for (int i = 0; i < shape.length; i++) dims.setLong(8L * i, shape[i]);
      OpenvinoC.Shape.ByValue passed = new OpenvinoC.Shape.ByValue();
      passed.rank = shape.length;
      passed.dims = dims;
      OpenvinoC.check(OpenvinoC.API.ov_tensor_create(type, passed, made), "allocate " + values + " values");
    }
    return made.getValue();
  }

  private Pointer memory() {
    PointerByReference found = new PointerByReference();
    OpenvinoC.check(OpenvinoC.API.ov_tensor_data(pointer, found), "read a tensor");
    return found.getValue();
  }

  /** A copy of its values. */
  public float[] data() {
    try {
      IntByReference type = new IntByReference();
      OpenvinoC.check(OpenvinoC.API.ov_tensor_get_element_type(pointer, type), "read a tensor's type");
      if (type.getValue() != OpenvinoC.F32) throw new IllegalStateException("the model's output is not f32");
      LongByReference elements = new LongByReference();
      OpenvinoC.check(OpenvinoC.API.ov_tensor_get_size(pointer, elements), "read a tensor's size");
      return memory().getFloatArray(0, Math.toIntExact(elements.getValue()));
    } finally {
      Reference.reachabilityFence(this);
    }
  }
}
