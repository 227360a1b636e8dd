package entitymill.faults;

import io.delta.storage.LocalLogStore;
import java.io.IOException;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;

/** Delta's log store for local files, in which a run may die at each commit. */
public class MortalLogStore extends LocalLogStore {
  public MortalLogStore(Configuration configuration) {
    super(configuration);
  }

  @Override
  public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration configuration) throws IOException {
    Mortality.of("commit", path, () -> {
      super.write(path, actions, overwrite, configuration);
      return null;
    });
  }
}
