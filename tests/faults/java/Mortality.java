package entitymill.faults;

import java.util.concurrent.atomic.AtomicInteger;

/** Decides when a run of a test dies: at which change of the output, and before or after this change takes effect. */
public final class Mortality {
  private static final AtomicInteger changes = new AtomicInteger();
  private static volatile int fatal = 0;
  private static volatile boolean after = false;
  private static volatile boolean dead = false;
  private static volatile String mortal = "";
  private static volatile String last = "";

  private Mortality() {}

  /** Start to count changes below a directory, from 1. The run dies at the change with this number; with 0, it does not die. */
  public static synchronized void arm(String directory, int number, boolean afterwards) {
    changes.set(0);
    mortal = directory;
    fatal = number;
    after = afterwards;
    dead = false;
    last = "";
  }

  /** Stop counting changes, and let every change succeed. */
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

  /** Return the change at which the run died. */
  public static String fatalChange() {
    return last;
  }

  /** A change of files, which may fail. */
  public interface Change<R> {
    R make() throws java.io.IOException;
  }

  /** Make a change of a path; throw if the run is dead, or dies before or after this change. */
  public static <R> R of(String what, Object path, Change<R> change) throws java.io.IOException {
    if (mortal.isEmpty() || !path.toString().contains(mortal)) {
      return change.make();
    }
    // This is not an IOException, after which callers would retry: a dead run must do nothing more.
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
