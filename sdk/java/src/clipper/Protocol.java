package clipper;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.*;
import java.lang.reflect.Array;
import java.nio.*;
import java.util.*;
import java.util.function.LongSupplier;
import java.util.regex.*;
import java.util.stream.*;

/** A container's half of proto/container-protocol.md. What breaks it throws a RuntimeException, as ByteBuffers do. */
final class Protocol {
    static final int HELLO = 1, WELCOME = 2, PREDICT = 3, RESULTS = 4, ERROR = 5, PING = 6, PONG = 7, TYPED_RESULTS = 8;
    static final int PREDICT_COLUMNS = 9, COLUMN_RESULTS = 10, STRING = 7, BYTES = 8;
    static final int VERSION = 5, RECORDS_VERSION = 4, MIXED_VERSION = 5, MAX_ROWS = 65_536;
    static final int MAX_BODY_BYTES = 1 << 30, MAX_HELLO_BYTES = 8 + 0xFFFF;
    private static final int MAX_TRACE_BYTES = 128 * 1024;
    static final List<String> DTYPES =
            List.of("", "int32", "int64", "float32", "float64", "uint8", "bool", "string", "bytes");
    static final int[] DTYPE_BYTES = {0, 4, 8, 4, 8, 1, 1, 1, 1};
    private static final Map<Class<?>, Integer> NUMBER_DTYPES = Map.of(Byte.class, 1, Short.class, 1, Integer.class, 1,
            Long.class, 2, Float.class, 3, Double.class, 4, Boolean.class, 6);
    private static final Map<Class<?>, Integer> ARRAY_DTYPES = Map.of(byte[].class, 1, short[].class, 1, int[].class, 1,
            long[].class, 2, float[].class, 3, double[].class, 4, boolean[].class, 6);
    private static final Pattern SPECIAL = Pattern.compile("[\"\\\\\\x00-\\x1f]");

    record Frame(int kind, long id, ByteBuffer body) {}

    /** What all rows are: the number of the element type, and the length of each dimension, 0 for any; or fields. */
    record InputType(int dtype, int[] shape, List<InputType> fields, boolean isNullable) {
        InputType(int dtype, int[] shape) {
            this(dtype, shape, List.of(), false);
        }

        static InputType parse(String text) {
            if (text.contains(":")) {
                return new InputType(0, new int[0], parseFields(text), false);
            }
            String[] parts = text.replace('*', '0').replace(" ", "").split("[\\[,\\]]"); // e.g. float32[3,*]
            int[] shape = Arrays.stream(parts).skip(1).mapToInt(Integer::parseInt).toArray();
            check(DTYPES.indexOf(parts[0]) > 0, text + " is no input type");
            return new InputType(DTYPES.indexOf(parts[0]), text.contains("[") ? shape : new int[1]);
        }

        /** Names may be in quotes; categories and defaults are passed over. */
        private static List<InputType> parseFields(String text) {
            List<InputType> fields = new ArrayList<>();
            boolean isQuoted = false;
            boolean hasMark = false;
            int depth = 0;
            int start = -1; // of the type of the field that is read
            int end = -1;
            for (int at = 0; at <= text.length(); at++) {
                char c = at < text.length() ? text.charAt(at) : ',';
                if (isQuoted) {
                    at += c == '\\' ? 1 : 0;
                    isQuoted = c != '"';
                    continue;
                }
                isQuoted = c == '"';
                hasMark |= c == '?';
                start = c == ':' && start < 0 ? at + 1 : start;
                end = end < 0 && start >= 0 && ("?{=".indexOf(c) >= 0 || c == ',' && depth == 0) ? at : end;
                depth += "[{".indexOf(c) >= 0 ? 1 : "]}".indexOf(c) >= 0 ? -1 : 0;
                if (c == ',' && depth == 0) {
                    check(start >= 0, "expected fields such as age: float64, job: string?, and not " + text);
                    String type = text.substring(start, end).strip();
                    InputType parsed = parse(type);
                    int[] shape = parsed.dtype < STRING && !type.contains("[") ? new int[0] : parsed.shape;
                    fields.add(new InputType(parsed.dtype, shape, List.of(), hasMark));
                    start = end = -1;
                    hasMark = false;
                }
            }
            return fields;
        }

        /** How many dimensions a row carries before its data: all, if its size alone does not tell them. */
        int leading() {
            return shape.length > 1 && Arrays.stream(shape).anyMatch(length -> length == 0) ? shape.length : 0;
        }

        boolean accepts(InputType other) {
            return dtype == other.dtype && shape.length == other.shape.length && IntStream.range(0, shape.length)
                    .allMatch(axis -> shape[axis] == 0 || shape[axis] == other.shape[axis])
                    && (isNullable || !other.isNullable) && fields.size() == other.fields.size()
                    && IntStream.range(0, fields.size()).allMatch(at -> fields.get(at).accepts(other.fields.get(at)));
        }

        Model.Row row(ByteBuffer bytes) {
            int[] lengths = shape.length == 1 ? new int[] {bytes.remaining() / DTYPE_BYTES[dtype]} : shape.clone();
            bytes.asIntBuffer().get(lengths, 0, leading());
            ByteBuffer data = bytes.position(4 * leading()).slice().order(ByteOrder.LITTLE_ENDIAN);
            long size = Arrays.stream(lengths).asLongStream().reduce(DTYPE_BYTES[dtype], Math::multiplyExact);
            check(accepts(new InputType(dtype, lengths)) && size == data.remaining(), "a row is of another shape");
            return new Model.Row(data, lengths, Map.of());
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
        boolean isKnown = kind >= HELLO && kind <= COLUMN_RESULTS;
        check(isKnown && size >= 0 && size <= maxBodyBytes, "expected a header of the protocol");
        return new Frame(kind, header.getLong(), littleEndian(in.readNBytes(size))); // which grows as bytes come
    }

    static byte[] token(Frame hello) {
        ByteBuffer body = hello.body;
        check(hello.kind == HELLO && body.getInt() == 0x52504C43, "expected HELLO");
        check(body.getShort() != 0, "expected HELLO of version 1 or later");
        check(Short.toUnsignedInt(body.getShort()) == body.remaining(), "token is not of the size that HELLO says");
        return Arrays.copyOfRange(body.array(), 8, body.limit());
    }

    /** The version to speak: the caller's, or the newest here. */
    static int version(Frame hello) {
        return Math.min(Short.toUnsignedInt(hello.body.getShort(4)), VERSION);
    }

    /** Takes the trace off the end of the body of a PREDICT or PREDICT_COLUMNS. */
    static List<Model.Span> trace(Frame predict, int version) {
        ByteBuffer body = predict.body;
        boolean hasTrace = predict.kind == PREDICT || predict.kind == PREDICT_COLUMNS;
        int size = !hasTrace || body.limit() < 16 ? 0 : body.getInt(predict.kind == PREDICT ? 12 : 8);
        check(size == 0 || version >= 3 && size > 0 && size <= Math.min(body.limit() - 16, MAX_TRACE_BYTES),
                "expected a PREDICT whose trace is of a size that fits");
        byte[] text = new byte[size];
        body.get(body.limit() - size, text).limit(body.limit() - size);
        return size == 0 ? List.of() : Arrays.stream(new String(text, UTF_8).split("\n", -1))
                .map(line -> line.split(" ", 2))
                .map(parts -> new Model.Span(parts[0], parts.length > 1 ? parts[1] : "")).toList();
    }

    /** Returns the rows, as views of the body, whose trace is taken off. */
    static List<ByteBuffer> rows(Frame predict, InputType type) {
        ByteBuffer body = predict.body;
        check(predict.kind == PREDICT, "expected PREDICT or PING after HELLO");
        int count = body.getInt();
        int rowBytes = body.getInt();
        check(count >= 1 && count <= MAX_ROWS && type.fields.isEmpty() && body.get() == type.dtype
                && body.get() == type.leading() && body.getShort() == 0,
                "expected 1 to 65,536 rows of the type in WELCOME");
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

    /** {@code outputType} is null if it is not known. */
    static byte[] welcome(int protocol, String name, String version, Model model, String outputType) {
        boolean isTold = outputType != null && (protocol >= RECORDS_VERSION || !outputType.contains(":"));
        String json = """
                {"protocol":%d,"model":%s,"version":%s,"input_type":%s,"max_batch":%s,"output_type":%s,\
                "output_is_declared":%s,"runtime":"java"}""";
        return frame(WELCOME, 0, json.formatted(protocol, json(name), json(version), json(model.inputType()),
                model.maxBatch() > 0 ? model.maxBatch() : null, json(isTold ? outputType : null),
                isTold && model.outputType() != null).getBytes(UTF_8));
    }

    /** A number or an array of them; in a record also a text or bytes. */
    record Value(int dtype, int[] shape, ByteBuffer bytes) {
        /** Returns null if it is something else. */
        static Value of(Object given) {
            Object value = array(given);
            int[] shape = new int[0];
            Object first = value;
            while (first != null && first.getClass().isArray() && Array.getLength(first) > 0) {
                shape = Arrays.copyOf(shape, shape.length + 1);
                shape[shape.length - 1] = Array.getLength(first);
                if (ARRAY_DTYPES.containsKey(first.getClass())) {
                    break;
                }
                first = Array.get(first, 0);
            }
            Map<Class<?>, Integer> dtypes = shape.length == 0 ? NUMBER_DTYPES : ARRAY_DTYPES;
            Integer dtype = first == null ? null : dtypes.get(first.getClass());
            if (dtype == null || shape.length > 8) {
                return null;
            }
            long size = Arrays.stream(shape).asLongStream().reduce(DTYPE_BYTES[dtype], Math::multiplyExact);
            check(size <= MAX_BODY_BYTES, "expected outputs that fit a frame");
            ByteBuffer bytes = littleEndian(new byte[(int) size]);
            if (shape.length == 0) {
                put(bytes, dtype, value);
            } else if (!put(bytes, value, first.getClass(), shape, 0)) {
                return null;
            }
            return new Value(dtype, shape, bytes);
        }

        /** Returns a Collection of Doubles, or of such Collections, as an array; anything else unchanged. */
        private static Object array(Object value) {
            if (!(value instanceof Collection<?> elements) || elements.isEmpty()) {
                return value;
            } else if (elements.stream().allMatch(Double.class::isInstance)) {
                return elements.stream().mapToDouble(Double.class::cast).toArray();
            }
            Object[] arrays = elements.stream().map(Value::array).toArray();
            return Arrays.stream(arrays).allMatch(each -> each != null && each.getClass().isArray()) ? arrays : value;
        }

        /** Puts the elements of an array; returns false if it is of another shape, or has parts of another class. */
        private static boolean put(ByteBuffer row, Object array, Class<?> leaf, int[] shape, int axis) {
            if (array == null || !array.getClass().isArray() || Array.getLength(array) != shape[axis]) {
                return false;
            } else if (axis + 1 < shape.length) {
                return Arrays.stream((Object[]) array).allMatch(part -> put(row, part, leaf, shape, axis + 1));
            } else if (array.getClass() != leaf) {
                return false;
            }
            if (array instanceof float[] numbers) { // these two are what most models answer: reflection is slower
                for (float number : numbers) {
                    row.putFloat(number);
                }
                return true;
            } else if (array instanceof double[] numbers) {
                for (double number : numbers) {
                    row.putDouble(number);
                }
                return true;
            }
            for (int at = 0; at < shape[axis]; at++) {
                put(row, ARRAY_DTYPES.get(leaf), Array.get(array, at));
            }
            return true;
        }

        private static void put(ByteBuffer row, int dtype, Object element) {
            switch (dtype) {
                case 1 -> row.putInt(((Number) element).intValue());
                case 2 -> row.putLong(((Number) element).longValue());
                case 3 -> row.putFloat((float) element);
                case 4 -> row.putDouble((double) element);
                default -> row.put((byte) ((boolean) element ? 1 : 0));
            }
        }
    }

    /** Outputs that are arrays of one type and shape: each row's bytes, 0 for a row that failed. */
    record Typed(int dtype, int[] shape, List<ByteBuffer> rows, SortedMap<Integer, byte[]> failures) {
        /** Returns null if they are not, or numbers: their text is as fast, but NaN and infinity have none. */
        static Typed of(List<?> outputs) {
            Typed all = null;
            boolean isText = true;
            SortedMap<Integer, byte[]> failures = new TreeMap<>();
            List<ByteBuffer> rows = new ArrayList<>();
            for (Object output : outputs) {
                if (output instanceof RuntimeException failure) {
                    failures.put(rows.size(), message(failure));
                    rows.add(ByteBuffer.allocate(0));
                    continue;
                }
                Value value = Value.of(output);
                all = all == null && value != null ? new Typed(value.dtype, value.shape, rows, failures) : all;
                if (value == null || all.dtype != value.dtype || !Arrays.equals(all.shape, value.shape)) {
                    return null;
                }
                isText = isText && output instanceof Number number && Double.isFinite(number.doubleValue());
                rows.add(value.bytes);
            }
            return all != null && all.shape.length == 0 && isText ? null : all;
        }

        String type() {
            return DTYPES.get(dtype) + Arrays.toString(shape).replace(" ", "");
        }

        byte[] frame(long id, long evaluationUs) {
            int rowBytes = Arrays.stream(shape).reduce(DTYPE_BYTES[dtype], (size, length) -> size * length);
            int start = 24 + (shape.length + 1) / 2 * 8;
            long size = start + (long) rowBytes * rows.size()
                    + failures.values().stream().mapToLong(message -> 8 + message.length).sum();
            check(size <= MAX_BODY_BYTES, "expected outputs that fit a frame");
            ByteBuffer body = littleEndian(new byte[(int) size]);
            body.putInt(rows.size()).putInt(failures.size()).putLong(evaluationUs);
            body.put((byte) dtype).put((byte) dtype).put((byte) shape.length).position(24);
            Arrays.stream(shape).forEach(body::putInt);
            for (int row = 0; row < rows.size(); row++) {
                body.position(start + row * rowBytes).put(rows.get(row).array());
            }
            body.position(start + rows.size() * rowBytes);
            failures.forEach((row, message) -> body.putInt(row).putInt(message.length).put(message));
            return Protocol.frame(TYPED_RESULTS, id, body.array());
        }
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

    /** Of outputs that stand for one. */
    static SortedMap<Integer, byte[]> failures(List<?> outputs) {
        SortedMap<Integer, byte[]> failures = new TreeMap<>();
        for (int row = 0; row < outputs.size(); row++) {
            if (outputs.get(row) instanceof RuntimeException failure) {
                failures.put(row, message(failure));
            }
        }
        return failures;
    }

    static byte[] message(Throwable error) {
        return "%.1365s".formatted(error).getBytes(UTF_8); // 4,095 bytes at most
    }

    static byte[] frame(int kind, long id, byte[] body) {
        return littleEndian(new byte[16 + body.length]).putInt(body.length).putInt(kind).putLong(id).put(body).array();
    }

    static String json(Object value) {
        if (value instanceof RuntimeException failure) {
            throw failure;
        } else if (value instanceof Model.Json json) {
            return json.text().replace('\n', ' '); // white space in JSON, but the end of an output here
        } else if (value == null || value instanceof Boolean || value instanceof Number) {
            boolean isJson = !(value instanceof Number number) || Double.isFinite(number.doubleValue());
            return isJson ? String.valueOf(value) : "null"; // of a double, digits that read back as the same number
        } else if (value instanceof Model.Bytes bytes) {
            return '"' + Base64.getEncoder().encodeToString(bytes.data()) + '"';
        } else if (value instanceof Map<?, ?> record) {
            return record.entrySet().stream()
                    .map(field -> json(String.valueOf(field.getKey())) + ":" + json(field.getValue()))
                    .collect(Collectors.joining(",", "{", "}"));
        } else if (value instanceof CharSequence text) {
            return '"' + SPECIAL.matcher(text).replaceAll(c -> "\\\\u%04x".formatted((int) c.group().charAt(0))) + '"';
        } else if (value instanceof Collection<?> elements) {
            return elements.stream().map(Protocol::json).collect(Collectors.joining(",", "[", "]"));
        } else if (value.getClass().isArray()) {
            return json(IntStream.range(0, Array.getLength(value)).mapToObj(at -> Array.get(value, at)).toList());
        }
        throw new IllegalArgumentException("JSON has no " + value.getClass());
    }
}
