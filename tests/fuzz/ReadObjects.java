import java.io.*;
import java.nio.file.*;
import java.util.*;

/** Deserializes a file as Spark NLP would, and prints a line of the classes that its streams name. */
public class ReadObjects {
    public static void main(String[] files) throws Exception {
        for (String file : Files.readAllLines(Path.of(files[0]))) {
            Set<String> names = new TreeSet<>();
            String end = "read";
            try (InputStream bytes = new FileInputStream(file);
                 ObjectInputStream stream = new ObjectInputStream(bytes) {
                     @Override protected Class<?> resolveClass(ObjectStreamClass kind) throws IOException, ClassNotFoundException {
                         names.add(kind.getName());
                         return super.resolveClass(kind);
                     }
                     @Override protected Class<?> resolveProxyClass(String[] interfaces) {
                         names.add("a proxy");
                         return Object.class;
                     }
                 }) {
                stream.readObject();
            } catch (Throwable error) {
                end = error.getClass().getName();
            }
            System.out.println(end + " " + String.join(" ", names));
        }
    }
}
