package clipper;

import static clipper.Protocol.*;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.nio.*;
import java.nio.charset.CharacterCodingException;
import java.util.*;
import java.util.stream.*;

/** Batches of records, inputs and outputs: a buffer for each field. */
final class Columns {
    private static final int MAX_COLUMNS = 1_000, MAX_NAME_BYTES = 255;
    private static final List<Integer> JSON = List.of(0, 0); // stands where the type of other values does

    /** The values of a field, one for each row; {@code present} and {@code lengths} are null where none are needed. */
    record Column(String name, int dtype, int writtenAs, int[] shape, byte[] present, int[] lengths, ByteBuffer data) {
        boolean isMissing(int row) {
            return present != null && (present[row / 8] >> row % 8 & 1) == 0;
        }

        boolean isOpen() {
            return dtype >= STRING || Arrays.stream(shape).anyMatch(length -> length == 0);
        }

        String type() {
            String lengths = Arrays.stream(shape).mapToObj(length -> length == 0 ? "*" : String.valueOf(length))
                    .collect(Collectors.joining(",", "[", "]"));
            String type = DTYPES.get(dtype) + (dtype < STRING ? lengths : "");
            return (name.isEmpty() ? "" : json(name) + ": ") + type + (present == null ? "" : "?");
        }
    }

    private Columns() {}

    /** Reads a PREDICT_COLUMNS, whose trace is taken off. */
    static List<Column> read(Frame predict) {
        ByteBuffer body = predict.body();
        int rows = body.getInt();
        int count = Short.toUnsignedInt(body.getShort());
        check(rows >= 1 && rows <= MAX_ROWS && count >= 1 && count <= MAX_COLUMNS && body.getShort() == 0
                && body.getInt(12) == 0, "expected 1 to 65,536 rows of 1 to 1,000 columns");
        body.position(16);
        List<Column> columns = new ArrayList<>();
        for (int at = 0; at < count; at++) {
            columns.add(readColumn(body, rows));
        }
        check(columns.stream().map(Column::name).distinct().count() == count, "two columns have one name");
        check(!body.hasRemaining(), "expected PREDICT_COLUMNS to end with its columns");
        return columns;
    }

    private static Column readColumn(ByteBuffer body, int rows) {
        int dtype = body.get();
        int dimensions = body.get();
        int hasPresent = body.get();
        check(dtype >= 1 && dtype <= BYTES && dimensions >= 0 && dimensions <= 8 && hasPresent >= 0 && hasPresent <= 1
                && body.get() == dtype, "a column's head is malformed");
        int nameBytes = Short.toUnsignedInt(body.getShort());
        check(nameBytes > 0 && body.getShort() == 0, "a column has no name, or a reserved field that is not 0");
        int[] shape = IntStream.range(0, dimensions).map(axis -> body.getInt()).toArray();
        check(Arrays.stream(shape).allMatch(length -> length >= 0), "a column's shape is too large");
        String name = text(take(body, nameBytes, 4 * dimensions + nameBytes));
        byte[] present = hasPresent == 0 ? null : new byte[(rows + 63) / 64 * 8];
        if (present != null) {
            body.get(present);
        }
        Column column = new Column(name, dtype, dtype, shape, present, null, null);
        int[] lengths = column.isOpen() ? new int[rows] : null;
        long total = Arrays.stream(shape).asLongStream().reduce((long) DTYPE_BYTES[dtype] * rows, Math::multiplyExact);
        if (lengths != null) {
            take(body, 4L * rows, 4L * rows).asIntBuffer().get(lengths);
            total = Arrays.stream(lengths).mapToLong(Integer::toUnsignedLong).sum();
        }
        return new Column(name, dtype, dtype, shape, present, lengths, take(body, total, total));
    }

    /** Takes bytes, of {@code padded} with which they are aligned. */
    private static ByteBuffer take(ByteBuffer body, long size, long padded) {
        check(size + (-padded & 7) <= body.remaining(), "a column ends after the frame");
        ByteBuffer taken = body.slice(body.position(), (int) size).order(ByteOrder.LITTLE_ENDIAN);
        body.position(body.position() + (int) (size + (-padded & 7)));
        return taken;
    }

    private static String text(ByteBuffer bytes) {
        try {
            return UTF_8.newDecoder().decode(bytes).toString();
        } catch (CharacterCodingException malformed) {
            throw new IllegalArgumentException("a column's name is not UTF-8", malformed);
        }
    }

    /** Returns a row for each record, with its fields. Throws if they are not of this type. */
    static List<Model.Row> rows(List<Column> columns, InputType type) {
        check(columns.size() == type.fields().size(), "expected the fields of the type in WELCOME");
        int count = 0;
        List<List<Model.Row>> values = new ArrayList<>();
        for (int at = 0; at < columns.size(); at++) {
            Column column = columns.get(at);
            InputType field = type.fields().get(at);
            boolean isLike = column.dtype == field.dtype() && (field.dtype() >= STRING
                    || Arrays.equals(column.shape, field.shape()));
            check(isLike, "expected the fields of the type in WELCOME, and not " + column.type());
            values.add(values(column, field));
            count = Math.max(count, values.get(at).size());
        }
        return IntStream.range(0, count).mapToObj(row -> {
            Map<String, Model.Row> fields = new LinkedHashMap<>();
            for (int at = 0; at < columns.size(); at++) {
                fields.put(columns.get(at).name, values.get(at).get(row));
            }
            return new Model.Row(ByteBuffer.allocate(0), new int[0], fields);
        }).toList();
    }

    private static List<Model.Row> values(Column column, InputType field) {
        int size = Arrays.stream(column.shape).reduce(DTYPE_BYTES[column.dtype], (all, length) -> all * length);
        int rows = column.lengths == null ? column.data.limit() / size : column.lengths.length;
        List<Model.Row> values = new ArrayList<>();
        int start = 0;
        for (int row = 0; row < rows; row++) {
            int length = column.lengths == null ? size : column.lengths[row];
            ByteBuffer bytes = column.data.slice(start, length).order(ByteOrder.LITTLE_ENDIAN);
            values.add(column.isMissing(row) ? null : field.row(bytes));
            start += length;
        }
        return values;
    }

    /**
     * Returns the columns of outputs that are Maps with the same keys; if {@code isMixed}, a column for each type of a
     * value, and also those of arrays that differ, without a name. Null for other outputs.
     */
    static List<Column> of(List<?> outputs, boolean isMixed) {
        List<?> good = outputs.stream().filter(output -> !(output instanceof RuntimeException)).toList();
        Set<?> names = !good.isEmpty() && good.get(0) instanceof Map<?, ?> first ? first.keySet() : Set.of();
        List<Column> columns = new ArrayList<>();
        if (names.isEmpty() || !good.stream().allMatch(output -> output instanceof Map<?, ?> record
                && record.keySet().equals(names))) {
            boolean isAny = isMixed && good.stream().anyMatch(Columns::isRaw) && add(columns, "", outputs, true);
            return isAny ? columns : null;
        }
        for (Object name : names) {
            List<Object> values = new ArrayList<>();
            outputs.forEach(output -> values.add(output instanceof Map<?, ?> record ? record.get(name) : output));
            int nameBytes = String.valueOf(name).getBytes(UTF_8).length;
            if (nameBytes == 0 || nameBytes > MAX_NAME_BYTES || columns.size() >= MAX_COLUMNS
                    || !add(columns, String.valueOf(name), values, isMixed)) {
                return null;
            }
        }
        return columns;
    }

    /** Returns whether an output is an array, or a number that has no JSON. */
    private static boolean isRaw(Object output) {
        Value value = Value.of(output);
        return value != null && (value.shape().length > 0
                || output instanceof Number number && !Double.isFinite(number.doubleValue()));
    }

    /** Adds a column for each type that the values have; returns false if there may be only one. */
    private static boolean add(List<Column> columns, String name, List<?> given, boolean isMixed) {
        List<Value> values = given.stream().map(Columns::value).toList();
        Map<List<Integer>, int[]> shapes = new LinkedHashMap<>(); // by dtype and number of dimensions
        values.stream().filter(Objects::nonNull).forEach(value -> shapes.merge(kind(value), value.shape(),
                (one, other) -> IntStream.range(0, one.length).map(at -> one[at] == other[at] ? one[at] : 0).toArray()
        ));
        if (!isMixed && (shapes.size() != 1 || shapes.containsKey(JSON))) {
            return false;
        }
        if (shapes.isEmpty()) { // all are missing
            shapes.put(JSON, new int[0]);
        }
        boolean isShared = shapes.size() > 1; // values of other types take no place in a column
        boolean hasPresent = isShared || given.contains(null);
        shapes.forEach((kind, shape) -> columns.add(
                column(name, kind, isShared ? new int[shape.length] : shape, values, given, hasPresent)));
        return true;
    }

    private static Column column(
            String name, List<Integer> kind, int[] shape, List<Value> values, List<?> given, boolean hasPresent) {
        int dtype = kind.equals(JSON) ? STRING : kind.get(0);
        boolean isOpen = new Column(name, dtype, 0, shape, null, null, null).isOpen();
        byte[] present = new byte[(given.size() + 7) / 8];
        List<byte[]> parts = new ArrayList<>();
        int size = isOpen ? 0 : Arrays.stream(shape).reduce(DTYPE_BYTES[dtype], Math::multiplyExact);
        for (int row = 0; row < given.size(); row++) {
            Value value = values.get(row);
            boolean isThere = value != null && kind(value).equals(kind);
            present[row / 8] |= (byte) (isThere || given.get(row) instanceof RuntimeException ? 1 << row % 8 : 0);
            parts.add(!isThere ? new byte[size] : (isOpen ? withShape(value) : value.bytes()).array());
        }
        ByteBuffer data = ByteBuffer.allocate(parts.stream().mapToInt(part -> part.length).reduce(0, Math::addExact));
        parts.forEach(data::put);
        int[] lengths = isOpen ? parts.stream().mapToInt(part -> part.length).toArray() : null;
        return new Column(name, dtype, kind.get(0), shape, hasPresent ? present : null, lengths, data);
    }

    private static List<Integer> kind(Value value) {
        return List.of(value.dtype(), value.shape().length);
    }

    /** Returns null for a missing value, and for a failure. What is of no type becomes JSON. */
    private static Value value(Object value) {
        Value typed = Value.of(value);
        if (typed != null || value == null || value instanceof RuntimeException) {
            return typed;
        } else if (value instanceof Model.Bytes bytes) {
            return new Value(BYTES, new int[0], ByteBuffer.wrap(bytes.data()));
        }
        boolean isText = value instanceof CharSequence;
        byte[] bytes = (isText ? value.toString() : json(value)).getBytes(UTF_8);
        return new Value(isText ? STRING : JSON.get(0), new int[0], ByteBuffer.wrap(bytes));
    }

    /** Returns the type of outputs in these columns; null if a name has several. */
    static String type(List<Column> columns) {
        boolean isMixed = columns.stream().map(Column::name).distinct().count() < columns.size();
        return isMixed || columns.stream().anyMatch(column -> column.writtenAs == JSON.get(0)) ? null
                : columns.stream().map(Column::type).collect(Collectors.joining(", "));
    }

    /** Returns the bytes of an array after its own dimensions, if it has two or more. */
    private static ByteBuffer withShape(Value value) {
        int dimensions = value.shape().length > 1 ? value.shape().length : 0;
        ByteBuffer bytes = littleEndian(new byte[4 * dimensions + value.bytes().capacity()]);
        Arrays.stream(value.shape()).limit(dimensions).forEach(bytes::putInt);
        return bytes.put(value.bytes().array());
    }

    static byte[] frame(
            long id, int rows, List<Column> columns, long evaluationUs, SortedMap<Integer, byte[]> failures) {
        long size = 24 + failures.values().stream().mapToLong(message -> 8 + message.length).sum();
        for (Column column : columns) {
            size += padded(8 + 4 * column.shape.length + column.name.getBytes(UTF_8).length)
                    + padded(column.present == null ? 0 : column.present.length)
                    + padded(column.lengths == null ? 0 : 4L * column.lengths.length) + padded(column.data.capacity());
        }
        check(size <= MAX_BODY_BYTES, "expected outputs that fit a frame");
        ByteBuffer body = littleEndian(new byte[(int) size]);
        body.putInt(rows).putInt(failures.size()).putLong(evaluationUs).putShort((short) columns.size()).position(24);
        for (Column column : columns) {
            byte[] name = column.name.getBytes(UTF_8);
            body.put((byte) column.dtype).put((byte) column.shape.length).put((byte) (column.present == null ? 0 : 1));
            body.put((byte) column.writtenAs).putShort((short) name.length).putShort((short) 0);
            Arrays.stream(column.shape).forEach(body::putInt);
            align(body.put(name));
            align(body.put(column.present == null ? new byte[0] : column.present));
            IntStream.of(column.lengths == null ? new int[0] : column.lengths).forEach(body::putInt);
            align(align(body).put(column.data.array()));
        }
        failures.forEach((row, message) -> body.putInt(row).putInt(message.length).put(message));
        return Protocol.frame(COLUMN_RESULTS, id, body.array());
    }

    private static long padded(long size) {
        return size + (-size & 7);
    }

    private static ByteBuffer align(ByteBuffer body) {
        return body.position((int) padded(body.position()));
    }
}
