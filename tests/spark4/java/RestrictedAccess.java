package entitymill.connect;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.apache.spark.connect.proto.AnalyzePlanRequest;
import org.apache.spark.connect.proto.ConfigRequest;
import org.apache.spark.connect.proto.KeyValue;
import org.apache.spark.connect.proto.Read;
import org.sparkproject.connect.grpc.ForwardingServerCallListener;
import org.sparkproject.connect.grpc.Metadata;
import org.sparkproject.connect.grpc.ServerCall;
import org.sparkproject.connect.grpc.ServerCallHandler;
import org.sparkproject.connect.grpc.ServerInterceptor;
import org.sparkproject.connect.grpc.Status;
import org.sparkproject.connect.protobuf.Message;

/**
 * Refuses requests to a Spark Connect server as Databricks' compute does: a stand-in for it in tests.
 *
 * <p>It refuses cached rows; properties, except those in the file that the Java property "entitymill.allowed" names (in each
 * line a name, or a prefix that ends in a point); and reads of files outside the directories that "entitymill.sandbox" lists.
 * Access to the JVM and RDDs are no part of Spark Connect at all. Sources: docs.databricks.com, "Serverless compute
 * limitations" and "Compute access mode limitations".
 */
public class RestrictedAccess implements ServerInterceptor {
  private static final List<String> SANDBOX = List.of(System.getProperty("entitymill.sandbox", "").split(","));

  @Override
  public <Q, R> ServerCall.Listener<Q> interceptCall(ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    return new ForwardingServerCallListener.SimpleForwardingServerCallListener<Q>(next.startCall(call, headers)) {
      private boolean refused;

      @Override
      public void onMessage(Q request) {
        String why = explainRefusal(request);
        if (why == null) {
          super.onMessage(request);
        } else {
          refused = true;
          call.close(Status.INTERNAL.withDescription(why), new Metadata());
        }
      }

      @Override
      public void onHalfClose() {
        if (!refused) {
          super.onHalfClose();
        }
      }
    };
  }

  private static String explainRefusal(Object request) {
    if (request instanceof AnalyzePlanRequest) {
      switch (((AnalyzePlanRequest) request).getAnalyzeCase()) {
        case PERSIST:
        case UNPERSIST:
        case GET_STORAGE_LEVEL:
          return "[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute. SQLSTATE: 0A000";
        default:
      }
    }
    if (request instanceof ConfigRequest && ((ConfigRequest) request).getOperation().hasSet()) {
      List<String> allowed = readAllowed();
      for (KeyValue pair : ((ConfigRequest) request).getOperation().getSet().getPairsList()) {
        String key = pair.getKey();
        if (allowed.stream().noneMatch(name -> name.endsWith(".") ? key.startsWith(name) : key.equals(name))) {
          return "[CONFIG_NOT_AVAILABLE] Configuration " + key + " is not available. SQLSTATE: 42K0I";
        }
      }
    }
    String outside = request instanceof Message ? findPathOutside((Message) request) : null;
    return outside == null ? null : "[INSUFFICIENT_PERMISSIONS] Insufficient privileges: " + outside + " SQLSTATE: 42501";
  }

  private static List<String> readAllowed() {
    try {
      return Files.readAllLines(Path.of(System.getProperty("entitymill.allowed")));
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  /**
   * Returns a path outside the sandbox from which a DataFrame reads files, null if there is none.
   *
   * <p>Only paths of {@code spark.read} are checked; paths in SQL text, and paths that a command writes, are not.
   */
  private static String findPathOutside(Message message) {
    if (message instanceof Read.DataSource) {
      for (String path : ((Read.DataSource) message).getPathsList()) {
        String plain = path.replaceFirst("^file:/*", "/");
        if (SANDBOX.stream().noneMatch(plain::startsWith)) {
          return path;
        }
      }
    }
    for (Map.Entry<?, Object> field : message.getAllFields().entrySet()) {
      List<?> values = field.getValue() instanceof List ? (List<?>) field.getValue() : List.of(field.getValue());
      for (Object value : values) {
        String found = value instanceof Message ? findPathOutside((Message) value) : null;
        if (found != null) {
          return found;
        }
      }
    }
    return null;
  }
}
