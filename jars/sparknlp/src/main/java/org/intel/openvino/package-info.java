/**
 * OpenVINO for Spark NLP 5.5.3, under the names its engine calls, on OpenVINO's own C library through JNA.
 *
 * <p>It takes the place of {@code com.johnsnowlabs.nlp:jsl-openvino-cpu_2.12} where that cannot be had, runs the OpenVINO
 * release that the Python package {@code openvino} brings, and lets its user choose precision and threads, for which Spark
 * NLP has no parameter. Only what token and text classifiers call is here; Spark NLP's generators (T5, …) call more.
 *
 * <p>Settings are looked up by {@link org.intel.openvino.Settings}. Format of the C API: openvino/c/*.h of OpenVINO 2026.4.
 */
package org.intel.openvino;
