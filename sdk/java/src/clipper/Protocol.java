package clipper;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A container's half of proto/container-protocol.md as values and bytes, with no I/O. */
final class Protocol {
    static final int HELLO = 1;
    static final int WELCOME = 2;
    static final int PREDICT = 3;
    static final int RESULTS = 4;
    static final int ERROR = 5;
    static final int PING = 6;
    static final int PONG = 7;
    static final int HEADER_BYTES = 16;
    static final int MAX_BODY_BYTES = 1 << 30;
    static final int MAX_HELLO_BYTES = 8 + 0xFFFF;
    static final int MAX_ROWS = 65_536;

    record Header(int bodyBytes, int kind, long id) {}

    record Batch(int rowBytes, int dtype, int dimensions, List<ByteBuffer> rows) {}

    /** The caller does not follow the protocol: its connection ends. */
    static final class Violation extends Exception {
        Violation(String message) {
            super(message);
        }
    }

    /** The batch as a whole cannot be answered. */
    static final class BatchFailed extends Exception {
        BatchFailed(String message) {
            super(message);
        }
    }

    private Protocol() {}

    static ByteBuffer littleEndian(byte[] bytes) {
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    static ByteBuffer frame(int kind, long id, byte[] body) {
        ByteBuffer frame = littleEndian(new byte[HEADER_BYTES + body.length]);
        return frame.putInt(body.length).putInt(kind).putLong(id).put(body).flip(); // flags and reserved are 0
    }

    static Header readHeader(ByteBuffer bytes, int maxBodyBytes) throws Violation {
        Header header = new Header(bytes.getInt(0), bytes.getInt(4), bytes.getLong(8));
        if (header.kind < HELLO || header.kind > PONG
                || Integer.compareUnsigned(header.bodyBytes, maxBodyBytes) > 0) {
            throw new Violation("a frame's header is malformed");
        }
        return header;
    }

    /** Returns the token. */
    static byte[] readHello(ByteBuffer body) throws Violation {
        if (body.remaining() < 8 || body.getInt(0) != littleEndian("CLPR".getBytes()).getInt(0)) {
            throw new Violation("HELLO does not begin with CLPR");
        }
        if (body.getShort(4) != 1) {
            throw new Violation("caller speaks another protocol than 1");
        }
        byte[] token = new byte[body.remaining() - 8];
        if (Short.toUnsignedInt(body.getShort(6)) != token.length) {
            throw new Violation("HELLO's token is not of the size that it says");
        }
        body.get(8, token);
        return token;
    }

    static ByteBuffer welcome(String name, String version, Model model) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("protocol", 1);
        fields.put("model", name);
        fields.put("version", version);
        fields.put("input_type", model.inputType());
        fields.put("max_batch", model.maxBatch() > 0 ? model.maxBatch() : null);
        fields.put("runtime", model.runtime());
        Outputs json = new Outputs();
        json.add(fields);
        return frame(WELCOME, 0, json.text());
    }

    /** The rows are views of the body. */
    static Batch readPredict(ByteBuffer body) throws Violation {
        int size = body.remaining();
        if (size < 16) {
            throw new Violation("PREDICT is too short");
        }
        int rows = body.getInt(0);
        int rowBytes = body.getInt(4);
        Batch batch = new Batch(rowBytes, body.get(8), body.get(9), new ArrayList<>());
        if (rows < 1 || rows > MAX_ROWS || batch.dtype < 1 || batch.dtype > 8 || batch.dimensions < 0
                || batch.dimensions > InputType.MAX_DIMENSIONS || body.getShort(10) != 0 || body.getInt(12) != 0) {
            throw new Violation("PREDICT has a field out of its range");
        }
        int start = rowBytes != 0 ? 16 : 16 + (rows * 4 + 7) / 8 * 8;
        for (int row = 0; row < rows; row++) {
            int bytes = rowBytes != 0 ? rowBytes : start > size ? -1 : body.getInt(16 + 4 * row);
            if (bytes < 0 || bytes > size - start) {
                throw new Violation("PREDICT ends inside its rows");
            }
            batch.rows.add(body.slice(start, bytes).order(ByteOrder.LITTLE_ENDIAN));
            start += bytes;
        }
        if (start != size) {
            throw new Violation("PREDICT goes on after its rows");
        }
        return batch;
    }

    /** Gives each row its shape, taking off the dimensions that it carries. */
    static List<Row> shaped(Batch batch, InputType type) throws BatchFailed {
        if (batch.dtype != type.dtype() || batch.dimensions != type.leading()) {
            throw new BatchFailed("rows are not of the model's type");
        }
        List<Row> rows = new ArrayList<>(batch.rows.size());
        for (ByteBuffer row : batch.rows) {
            rows.add(shaped(row, type));
        }
        return rows;
    }

    private static Row shaped(ByteBuffer row, InputType type) throws BatchFailed {
        int headBytes = 4 * type.leading();
        if (row.remaining() < headBytes) {
            throw new BatchFailed("a row ends inside its dimensions");
        }
        int[] declared = type.shape();
        int[] shape = declared.clone();
        if (headBytes > 0) {
            row.asIntBuffer().get(shape);
        }
        ByteBuffer data = row.slice(headBytes, row.remaining() - headBytes).order(ByteOrder.LITTLE_ENDIAN);
        long bytes = InputType.SIZES[type.dtype()];
        if (shape.length == 1 && shape[0] == 0) {
            shape[0] = (int) (data.remaining() / bytes);
        }
        boolean fits = true;
        for (int axis = 0; axis < shape.length && bytes <= MAX_BODY_BYTES; axis++) {
            fits &= declared[axis] == 0 || declared[axis] == shape[axis];
            bytes *= Integer.toUnsignedLong(shape[axis]);
        }
        if (!fits || (type.dtype() < InputType.STRING && bytes != data.remaining())) {
            throw new BatchFailed("a row has another shape than the model takes");
        }
        return new Row(data, shape);
    }

    static ByteBuffer results(long id, Outputs outputs, long evaluationUs) throws BatchFailed {
        byte[] text = outputs.text();
        long size = 16L + text.length + outputs.failures().values().stream().mapToLong(each -> 8 + each.length).sum();
        if (size > MAX_BODY_BYTES) {
            throw new BatchFailed("the outputs are too large for a frame");
        }
        ByteBuffer body = littleEndian(new byte[(int) size]);
        body.putInt(outputs.count()).putInt(outputs.failures().size()).putLong(evaluationUs);
        outputs.failures().forEach((row, message) -> body.putInt(row).putInt(message.length).put(message));
        return frame(RESULTS, id, body.put(text).array());
    }

    static ByteBuffer error(long id, String message) {
        return frame(ERROR, id, String.valueOf(message).getBytes(StandardCharsets.UTF_8));
    }

    static ByteBuffer pong(long id, long busyUs) {
        return frame(PONG, id, littleEndian(new byte[8]).putLong(busyUs).array());
    }
}
