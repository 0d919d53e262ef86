package clipper;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;

/**
 * A model that takes inputs such as {@code float64[784]}, or records such as {@code age: float64, job: string?}, and of
 * them {@code maxBatch} at once, if that is not 0. Its outputs are of {@code outputType}, e.g. {@code float32[10]} or
 * {@code label: string, scores: float32[10]}; null: of the type of the first arrays or Maps that it gives.
 */
public record Model(String inputType, int maxBatch, Predictor predictor, String outputType) {
    public Model(String inputType, int maxBatch, Predictor predictor) {
        this(inputType, maxBatch, predictor, null);
    }

    /** Makes a model of the options, such as {@code --data}. What it throws ends the process. */
    public interface Loader {
        Model load(Map<String, String> options) throws Exception;
    }

    /** Called for one batch at a time, always on the same thread. What it throws fails the batch. */
    public interface Predictor {
        /**
         * An output a row: a number, boolean, text, null, array or Collection of these, Bytes, Json or a
         * RuntimeException; or a Map of these by name, of several outputs.
         */
        List<?> predict(List<Row> rows) throws Exception;
    }

    /** Names a span, as in the headers of W3C Trace Context; {@code tracestate} is empty if the trace has none. */
    public record Span(String traceparent, String tracestate) {}

    /** The span of the batch that the model evaluates now, then those of its traced queries; none if not traced. */
    public static List<Span> trace() {
        return Container.trace;
    }

    /** An output that is JSON already. */
    public record Json(String text) {}

    /** An output that is no text: raw in a Map of outputs, and base64 in JSON. */
    public record Bytes(byte[] data) {}

    /**
     * Elements, as in {@code data.asDoubleBuffer()}, in C order, and the length of each dimension; or a text. A record
     * has nothing itself but fields.
     */
    public record Row(ByteBuffer data, int[] shape, Map<String, Row> fields) {
        /** The value of a field; null if it is missing, which it may be if the type says so: {@code job: string?}. */
        public Row field(String name) {
            if (!fields.containsKey(name)) {
                throw new IllegalArgumentException("the input has no field " + name);
            }
            return fields.get(name);
        }

        public String text() {
            return StandardCharsets.UTF_8.decode(data.duplicate()).toString();
        }
    }
}
