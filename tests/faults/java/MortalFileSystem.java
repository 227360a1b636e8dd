package entitymill.faults;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Set;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.util.Progressable;

/** Hadoop's local file system, in which a run may die at each file or directory that it creates, renames or deletes. */
public class MortalFileSystem extends LocalFileSystem {
  /** Sets permissions in Java. Hadoop starts the program chmod for each file and directory, a tenth of the test's time. */
  private static class OwnPermissions extends RawLocalFileSystem {
    @Override
    public void setPermission(Path path, FsPermission permission) throws IOException {
      Set<PosixFilePermission> wanted =
          PosixFilePermissions.fromString(permission.getUserAction().SYMBOL + permission.getGroupAction().SYMBOL
              + permission.getOtherAction().SYMBOL);
      Files.setPosixFilePermissions(pathToFile(path).toPath(), wanted);
    }
  }

  public MortalFileSystem() {
    super(new OwnPermissions());
  }

  @Override
  public FSDataOutputStream create(
      Path path, FsPermission permission, boolean overwrite, int buffer, short copies, long block, Progressable progress)
      throws IOException {
    return Mortality.of("create", path, () -> super.create(path, permission, overwrite, buffer, copies, block, progress));
  }

  @Override
  public boolean rename(Path from, Path to) throws IOException {
    return Mortality.of("rename", from, () -> super.rename(from, to));
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    return Mortality.of("delete", path, () -> super.delete(path, recursive));
  }

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    return Mortality.of("mkdirs", path, () -> super.mkdirs(path, permission));
  }

  @Override
  public boolean mkdirs(Path path) throws IOException {
    return Mortality.of("mkdirs", path, () -> super.mkdirs(path));
  }
}
