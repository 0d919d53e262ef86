package clipper;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.*;
import java.lang.reflect.Array;
import java.nio.*;
import java.util.*;
import java.util.function.LongSupplier;
import java.util.regex.Pattern;
import java.util.stream.*;

/** A container's half of proto/container-protocol.md. What breaks it throws a RuntimeException, as ByteBuffers do. */
final class Protocol {
    static final int HELLO = 1, WELCOME = 2, PREDICT = 3, RESULTS = 4, ERROR = 5, PING = 6, PONG = 7;
    static final int MAX_BODY_BYTES = 1 << 30, MAX_HELLO_BYTES = 8 + 0xFFFF;
    static final List<String> DTYPES =
            List.of("", "int32", "int64", "float32", "float64", "uint8", "bool", "string", "bytes");
    private static final int[] DTYPE_BYTES = {0, 4, 8, 4, 8, 1, 1, 1, 1};
    private static final Pattern SPECIAL = Pattern.compile("[\"\\\\\\x00-\\x1f]");

    record Frame(int kind, long id, ByteBuffer body) {}

    /** What all rows are: the number of the element type, and the length of each dimension, 0 if any will do. */
    record InputType(int dtype, int[] shape) {
        static InputType parse(String text) {
            String[] parts = text.replace('*', '0').split("[\\[,\\]]"); // e.g. float32[3,*]
            int[] shape = Arrays.stream(parts).skip(1).mapToInt(Integer::parseInt).toArray();
            return new InputType(DTYPES.indexOf(parts[0]), text.contains("[") ? shape : new int[1]);
        }

        /** How many dimensions a row carries before its data: all, if its size alone does not tell them. */
        int leading() {
            return shape.length > 1 && Arrays.stream(shape).anyMatch(length -> length == 0) ? shape.length : 0;
        }

        boolean accepts(InputType other) {
            return dtype == other.dtype && shape.length == other.shape.length && IntStream.range(0, shape.length)
                    .allMatch(axis -> shape[axis] == 0 || shape[axis] == other.shape[axis]);
        }

        Model.Row row(ByteBuffer bytes) {
            int[] lengths = shape.length == 1 ? new int[] {bytes.remaining() / DTYPE_BYTES[dtype]} : shape.clone();
            bytes.asIntBuffer().get(lengths, 0, leading());
            ByteBuffer data = bytes.position(4 * leading()).slice().order(ByteOrder.LITTLE_ENDIAN);
            long size = Arrays.stream(lengths).asLongStream().reduce(DTYPE_BYTES[dtype], Math::multiplyExact);
            check(accepts(new InputType(dtype, lengths)) && size == data.remaining(), "a row is of another shape");
            return new Model.Row(data, lengths);
        }
    }

    static void check(boolean isSo, String otherwise) {
        if (!isSo) {
            throw new IllegalArgumentException(otherwise);
        }
    }

    static ByteBuffer littleEndian(byte[] bytes) {
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    /** At the end of the stream there are fewer bytes, and reading them underflows. */
    static Frame read(InputStream in, int maxBodyBytes) throws IOException {
        ByteBuffer header = littleEndian(in.readNBytes(16));
        int size = header.getInt();
        int kind = header.getInt(); // with flags and reserved bits, which are 0
        check(kind >= HELLO && kind <= PONG && size >= 0 && size <= maxBodyBytes, "expected a header of protocol 1");
        return new Frame(kind, header.getLong(), littleEndian(in.readNBytes(size))); // which grows as bytes come
    }

    static byte[] token(Frame hello) {
        ByteBuffer body = hello.body;
        check(hello.kind == HELLO && body.getInt() == 0x52504C43 && body.getShort() == 1, "expected HELLO, protocol 1");
        check(Short.toUnsignedInt(body.getShort()) == body.remaining(), "token is not of the size that HELLO says");
        return Arrays.copyOfRange(body.array(), 8, body.limit());
    }

    /** Returns the rows, as views of the body. */
    static List<ByteBuffer> rows(Frame predict, InputType type) {
        ByteBuffer body = predict.body;
        check(predict.kind == PREDICT, "expected PREDICT or PING after HELLO");
        int count = body.getInt();
        int rowBytes = body.getInt();
        check(count >= 1 && count <= 65_536 && body.get() == type.dtype && body.get() == type.leading()
                && body.getShort() == 0 && body.getInt() == 0, "expected 1 to 65,536 rows of the type in WELCOME");
        int start = rowBytes != 0 ? 16 : 16 + (count * 4 + 7) / 8 * 8;
        List<ByteBuffer> rows = new ArrayList<>();
        for (int row = 0; row < count; row++) {
            int size = rowBytes != 0 ? rowBytes : body.getInt(16 + 4 * row);
            rows.add(body.slice(start, size).order(ByteOrder.LITTLE_ENDIAN));
            start += size;
        }
        check(start == body.limit(), "expected a PREDICT that ends with its rows");
        return rows;
    }

    static byte[] welcome(String name, String version, String inputType, int maxBatch) {
        return frame(WELCOME, 0, """
                {"protocol":1,"model":%s,"version":%s,"input_type":%s,"max_batch":%s,"runtime":"java"}"""
                .formatted(json(name), json(version), json(inputType), maxBatch > 0 ? maxBatch : null).getBytes(UTF_8));
    }

    /** Asks for {@code evaluationUs} once the outputs are text. */
    static byte[] results(long id, List<?> outputs, LongSupplier evaluationUs) {
        StringJoiner lines = new StringJoiner("\n");
        SortedMap<Integer, byte[]> failures = new TreeMap<>();
        for (int row = 0; row < outputs.size(); row++) {
            try {
                lines.add(json(outputs.get(row)));
            } catch (RuntimeException | StackOverflowError failure) { // a list that holds itself overflows
                failures.put(row, message(failure));
                lines.add("");
            }
        }
        byte[] text = lines.toString().getBytes(UTF_8);
        long size = 16L + text.length + failures.values().stream().mapToLong(message -> 8 + message.length).sum();
        check(size <= MAX_BODY_BYTES, "expected outputs that fit a frame");
        ByteBuffer body = littleEndian(new byte[(int) size]);
        body.putInt(outputs.size()).putInt(failures.size()).putLong(evaluationUs.getAsLong());
        failures.forEach((row, message) -> body.putInt(row).putInt(message.length).put(message));
        return frame(RESULTS, id, body.put(text).array());
    }

    static byte[] message(Throwable error) {
        return "%.1365s".formatted(error).getBytes(UTF_8); // 4,095 bytes at most
    }

    static byte[] frame(int kind, long id, byte[] body) {
        return littleEndian(new byte[16 + body.length]).putInt(body.length).putInt(kind).putLong(id).put(body).array();
    }

    private static String json(Object value) {
        if (value instanceof RuntimeException failure) {
            throw failure;
        } else if (value instanceof Model.Json json) {
            return json.text().replace('\n', ' '); // white space in JSON, but the end of an output here
        } else if (value == null || value instanceof Boolean
                || value instanceof Number number && Double.isFinite(number.doubleValue())) {
            return String.valueOf(value); // of a double, digits that read back as the same number
        } else if (value instanceof CharSequence text) {
            return '"' + SPECIAL.matcher(text).replaceAll(c -> "\\\\u%04x".formatted((int) c.group().charAt(0))) + '"';
        } else if (value instanceof Collection<?> elements) {
            return elements.stream().map(Protocol::json).collect(Collectors.joining(",", "[", "]"));
        } else if (value.getClass().isArray()) {
            return json(IntStream.range(0, Array.getLength(value)).mapToObj(at -> Array.get(value, at)).toList());
        }
        throw new IllegalArgumentException("JSON has no " + (value instanceof Number ? value : value.getClass()));
    }
}
