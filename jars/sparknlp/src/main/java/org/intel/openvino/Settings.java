package org.intel.openvino;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Where this binding finds what Spark NLP cannot pass on: a local property of the Spark job, so that each job may differ
 * and executors need no restart; else a Java system property of the same name; else an environment variable.
 */
final class Settings {
  /** Directory of libopenvino_c; without it the system's loader looks. */
  static final String LIBRARY = "entitymill.openvino.library";
  /** KEY=VALUE;KEY=VALUE: properties of OpenVINO's CPU device, for every model compiled. */
  static final String PROPERTIES = "entitymill.openvino.properties";

  private Settings() {}

  static String get(String name) {
    String found = ofJob(name);
    if (found == null) found = System.getProperty(name);
    if (found == null) found = System.getenv(name.toUpperCase().replace('.', '_'));
    return found;
  }

  static Map<String, String> properties() {
    Map<String, String> parsed = new LinkedHashMap<>();
    String text = get(PROPERTIES);
    if (text == null) return parsed;
    for (String pair : text.split(";")) {
      if (pair.isBlank()) continue;
      String[] parts = pair.split("=", 2);
      if (parts.length < 2) throw new IllegalArgumentException(PROPERTIES + ": " + pair + " is not KEY=VALUE");
      parsed.put(parts[0].trim(), parts[1].trim());
    }
    return parsed;
  }

  /** TaskContext.get().getLocalProperty(name), without needing Spark to compile. */
  private static String ofJob(String name) {
    try {
      Class<?> kind = Class.forName("org.apache.spark.TaskContext", true, Thread.currentThread().getContextClassLoader());
      Object task = kind.getMethod("get").invoke(null);
      return task == null ? null : (String) kind.getMethod("getLocalProperty", String.class).invoke(task, name);
    } catch (ReflectiveOperationException outsideOfSpark) {
      return null;
    }
  }
}
