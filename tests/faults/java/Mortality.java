package entitymill.faults;

import java.util.concurrent.atomic.AtomicInteger;

/** When a run of a test dies: at which of the changes it makes to an output, and whether before or after it took effect. */
public final class Mortality {
  private static final AtomicInteger changes = new AtomicInteger();
  private static volatile int fatal = 0;
  private static volatile boolean after = false;
  private static volatile boolean dead = false;
  private static volatile String mortal = "";
  private static volatile String last = "";

  private Mortality() {}

  /** Changes below a directory count from now on; the one of this number, from 1, is fatal; 0: none is. */
  public static synchronized void arm(String directory, int number, boolean afterwards) {
    changes.set(0);
    mortal = directory;
    fatal = number;
    after = afterwards;
    dead = false;
    last = "";
  }

  /** Nothing counts and nothing dies. */
  public static synchronized void disarm() {
    mortal = "";
    dead = false;
  }

  public static int count() {
    return changes.get();
  }

  public static boolean died() {
    return dead;
  }

  /** What was being done when it died. */
  public static String fatalChange() {
    return last;
  }

  /** A change of files, which may fail. */
  public interface Change<R> {
    R make() throws java.io.IOException;
  }

  /** Make a change of a path, unless the run is dead or dies. */
  public static <R> R of(String what, Object path, Change<R> change) throws java.io.IOException {
    if (mortal.isEmpty() || !path.toString().contains(mortal)) {
      return change.make();
    }
    // No IOException: those are tried again, and the dead try nothing.
    if (dead) {
      throw new IllegalStateException("the run is dead, as the test wants");
    }
    boolean now = changes.incrementAndGet() == fatal;
    if (now) {
      last = (after ? "after " : "before ") + what + " " + path;
    }
    if (now && !after) {
      dead = true;
      throw new IllegalStateException("the run dies before a change, as the test wants");
    }
    R made = change.make();
    if (now) {
      dead = true;
      throw new IllegalStateException("the run dies after a change, as the test wants");
    }
    return made;
  }
}
