package clipper;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * One input.
 *
 * @param data its elements in C order, little-endian, or a text's or byte string's bytes
 * @param shape as many lengths as the input type has dimensions
 */
public record Row(ByteBuffer data, int[] shape) {
    /** The elements of a float64 row. For others there is {@code data}: asFloatBuffer, asIntBuffer, ... */
    public double[] doubles() {
        double[] values = new double[data.remaining() / Double.BYTES];
        data.asDoubleBuffer().get(values);
        return values;
    }

    public String text() {
        return StandardCharsets.UTF_8.decode(data.duplicate()).toString();
    }
}
