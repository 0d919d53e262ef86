package clipper;

import java.util.Arrays;
import java.util.List;

/**
 * What one input is, e.g. {@code float64[784]}, {@code float32[3,*,*]} or {@code string}.
 *
 * @param dtype its number in the protocol, 1 to 8
 * @param shape a length a dimension, 0 for any
 */
public record InputType(int dtype, int[] shape) {
    static final List<String> NAMES =
            List.of("", "int32", "int64", "float32", "float64", "uint8", "bool", "string", "bytes");
    static final int[] SIZES = {0, 4, 8, 4, 8, 1, 1, 1, 1};
    static final int STRING = 7;
    static final int MAX_DIMENSIONS = 8;

    /** Throws IllegalArgumentException if the text is none. A bare numeric type is a list of any length. */
    public static InputType parse(String text) {
        int bracket = text.indexOf('[');
        int dtype = NAMES.indexOf(bracket < 0 ? text : text.substring(0, bracket));
        if (dtype < 1 || (bracket >= 0 && !text.endsWith("]"))) {
            throw new IllegalArgumentException("input type " + text + " is not known: expected e.g. float64[784]");
        }
        if (dtype >= STRING || bracket < 0) {
            return new InputType(dtype, new int[dtype >= STRING ? 0 : 1]);
        }
        String lengths = text.substring(bracket + 1, text.length() - 1);
        int[] shape = lengths.isBlank() ? new int[0] : Arrays.stream(lengths.split(","))
                .mapToInt(length -> length.strip().equals("*") ? 0 : Integer.parseInt(length.strip())).toArray();
        if (shape.length > MAX_DIMENSIONS) {
            throw new IllegalArgumentException("input type " + text + " has over " + MAX_DIMENSIONS + " dimensions");
        }
        return new InputType(dtype, shape);
    }

    /** How many dimensions a row carries before its data: all, if its size alone does not tell them. */
    int leading() {
        return shape.length > 1 && Arrays.stream(shape).anyMatch(length -> length == 0) ? shape.length : 0;
    }

    boolean accepts(InputType other) {
        boolean alike = dtype == other.dtype && shape.length == other.shape.length;
        for (int axis = 0; alike && axis < shape.length; axis++) {
            alike = shape[axis] == 0 || shape[axis] == other.shape[axis];
        }
        return alike;
    }
}
