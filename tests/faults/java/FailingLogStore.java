package entitymill.faults;

import io.delta.storage.LocalLogStore;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.StandardOpenOption;
import java.util.Iterator;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;

/**
 * Delta's log store for local files, in which commits fail as a plan says. The plan is a file with three words: "before", "after"
 * or "always"; the number of the first commit that fails; and a part of the table's path. The store reads the plan before each
 * commit. For each commit that fails, it adds a line to a file whose name is that of the plan with the suffix ".failed".
 */
public class FailingLogStore extends LocalLogStore {
  private static final AtomicInteger commits = new AtomicInteger();
  private static String lastPlan = "";

  public FailingLogStore(Configuration configuration) {
    super(configuration);
  }

  @Override
  public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration configuration) throws IOException {
    String when = due(path);
    if (when.equals("before") || when.equals("always")) {
      throw new IOException("storage fails before the commit, as the test wants");
    }
    super.write(path, actions, overwrite, configuration);
    if (when.equals("after")) {
      throw new IOException("storage fails after the commit, as the test wants");
    }
  }

  private static synchronized String due(Path path) throws IOException {
    java.nio.file.Path file = java.nio.file.Path.of(System.getProperty("entitymill.faults.plan"));
    String plan = Files.exists(file) ? Files.readString(file, StandardCharsets.UTF_8).trim() : "";
    if (!plan.equals(lastPlan)) {
      lastPlan = plan;
      commits.set(0);
    }
    String[] parts = plan.split(" ");
    if (parts.length != 3 || !path.toString().contains(parts[2])) {
      return "";
    }
    int number = commits.incrementAndGet();
    int first = Integer.parseInt(parts[1]);
    if (number < first || (number > first && !parts[0].equals("always"))) {
      return "";
    }
    Files.writeString(java.nio.file.Path.of(file + ".failed"), path + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    return parts[0];
  }
}
