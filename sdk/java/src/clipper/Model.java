package clipper;

import java.util.List;

/**
 * A model that is ready to answer.
 *
 * @param inputType what it takes, e.g. {@code float64[784]}; a deployment may declare a narrower one
 * @param maxBatch the most inputs that it takes at once, 0 if any number
 * @param runtime free text for {@code clipper model show}
 */
public record Model(String inputType, Predictor predictor, int maxBatch, String runtime) {
    public Model(String inputType, Predictor predictor) {
        this(inputType, predictor, 0, "java " + Runtime.version().feature());
    }

    /** Not called twice at once, nor always on the same thread. */
    @FunctionalInterface
    public interface Predictor {
        /**
         * Adds to {@code outputs} one output or failure an input, in the inputs' order. What it throws fails the first
         * input without an output; then it is called again, with those after that.
         */
        void predict(List<Row> rows, Outputs outputs) throws Exception;
    }

    private static final int MAX_THROWS = 16;

    /** Throws BatchFailed if the model does not give one output an input. */
    Outputs evaluate(List<Row> rows) throws Protocol.BatchFailed {
        Outputs outputs = new Outputs();
        for (int calls = 1; outputs.count() < rows.size(); calls++) {
            String cause = null;
            try {
                predictor.predict(rows.subList(outputs.count(), rows.size()), outputs);
            } catch (Throwable error) { // a model may throw anything, Errors too: it is the answer to its batch
                cause = "the model threw " + error;
                error.printStackTrace();
            }
            if (outputs.count() > rows.size() || (cause == null && outputs.count() < rows.size())) {
                throw new Protocol.BatchFailed(
                        "the model gave " + outputs.count() + " outputs for " + rows.size() + " inputs");
            }
            // One that always throws is not called for each input: then the rest of the batch fails, too.
            int failing = cause == null ? 0 : calls == MAX_THROWS ? rows.size() : 1;
            for (int row = 0; row < failing && outputs.count() < rows.size(); row++) {
                outputs.fail(cause);
            }
        }
        return outputs;
    }
}
