package org.intel.openvino;

import com.sun.jna.Pointer;
import java.lang.ref.Cleaner;
import java.util.function.Consumer;

/** Something OpenVINO allocated; freed when nothing refers to it any more, since Spark NLP never closes what it makes. */
abstract class NativeObject {
  private static final Cleaner CLEANER = Cleaner.create();

  final Pointer pointer;

  NativeObject(Pointer pointer, Consumer<Pointer> free) {
    this.pointer = pointer;
    // Must not refer to this, or it would never become unreachable.
    CLEANER.register(this, () -> free.accept(pointer));
  }
}
