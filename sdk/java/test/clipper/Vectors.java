package clipper;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

/** Reads proto/vectors/*.txt, given as arguments: a container's half of the protocol has to agree with each of them. */
final class Vectors {
    private final Map<String, List<String>> fields = new HashMap<>();
    private final byte[] frame;

    private Vectors(Path path) throws Exception {
        List<String> lines = Files.readAllLines(path);
        int split = lines.indexOf("frame:");
        for (String line : lines.subList(0, split)) {
            if (!line.startsWith("#")) {
                String[] parts = line.split(":", 2);
                fields.computeIfAbsent(parts[0], name -> new ArrayList<>()).add(parts[1].stripLeading());
            }
        }
        frame = hex(String.join(" ", lines.subList(split + 1, lines.size())));
    }

    public static void main(String[] paths) {
        int wrong = 0;
        for (String path : paths) {
            try {
                new Vectors(Path.of(path)).check();
            } catch (Exception error) {
                System.err.println(path + ": " + error);
                wrong++;
            }
        }
        System.out.println(paths.length + " vectors, " + wrong + " wrong");
        System.exit(wrong > 0 || paths.length == 0 ? 1 : 0);
    }

    private static byte[] hex(String text) {
        return HexFormat.of().parseHex(text.replace(" ", ""));
    }

    private String field(String name) {
        return fields.get(name).get(0);
    }

    private List<String> all(String name) {
        return fields.getOrDefault(name, List.of());
    }

    private ByteBuffer body() {
        return Protocol.littleEndian(Arrays.copyOfRange(frame, Protocol.HEADER_BYTES, frame.length));
    }

    private static void same(Object expected, Object found) {
        if (!expected.equals(found)) {
            throw new IllegalStateException("expected " + expected + ", found " + found);
        }
    }

    private void check() throws Exception {
        if (field("kind").equals("INVALID")) {
            checkInvalid();
            return;
        }
        Protocol.Header header = Protocol.readHeader(Protocol.littleEndian(frame), Protocol.MAX_BODY_BYTES);
        same(Long.parseUnsignedLong(field("id")), header.id());
        same(frame.length - Protocol.HEADER_BYTES, header.bodyBytes());
        switch (header.kind()) {
            case Protocol.HELLO ->
                    same(field("token"), new String(Protocol.readHello(body()), StandardCharsets.UTF_8));
            case Protocol.WELCOME -> checkWelcome();
            case Protocol.PREDICT -> checkPredict();
            case Protocol.RESULTS -> checkFrame(results(header.id()));
            case Protocol.ERROR -> checkFrame(Protocol.error(header.id(), field("message")));
            case Protocol.PING -> checkFrame(Protocol.frame(Protocol.PING, header.id(), new byte[0]));
            default -> checkFrame(Protocol.pong(header.id(), Long.parseUnsignedLong(field("busy_us"))));
        }
    }

    private void checkFrame(ByteBuffer encoded) {
        same(ByteBuffer.wrap(frame), encoded);
    }

    private void checkInvalid() {
        try {
            Protocol.Header header = Protocol.readHeader(Protocol.littleEndian(frame), Protocol.MAX_BODY_BYTES);
            switch (header.kind()) {
                case Protocol.HELLO -> Protocol.readHello(body());
                case Protocol.PREDICT -> Protocol.readPredict(body());
                default -> {
                    // A container reads no WELCOME, RESULTS or PONG.
                    if (!List.of("WELCOME", "RESULTS", "PONG").contains(field("as"))) {
                        throw new IllegalStateException("was not refused");
                    }
                    return;
                }
            }
        } catch (Protocol.Violation expected) {
            return;
        }
        throw new IllegalStateException("was not refused");
    }

    private void checkWelcome() {
        String json = field("json");
        int maxBatch = text(json, "max_batch").equals("null") ? 0 : Integer.parseInt(text(json, "max_batch"));
        Model model = new Model(text(json, "input_type"), (rows, outputs) -> {}, maxBatch, text(json, "runtime"));
        ByteBuffer welcome = Protocol.welcome(text(json, "model"), text(json, "version"), model);
        String written = StandardCharsets.UTF_8.decode(welcome.position(Protocol.HEADER_BYTES)).toString();
        for (String name : List.of("protocol", "model", "version", "input_type", "max_batch", "runtime")) {
            same(text(json, name), text(written, name));
        }
        InputType.parse(model.inputType());
    }

    /** A field of a flat JSON object without escapes. */
    private static String text(String json, String name) {
        var found = Pattern.compile("\"" + name + "\": ?(?:\"([^\"]*)\"|(\\w+))").matcher(json);
        same(true, found.find());
        return found.group(1) != null ? found.group(1) : found.group(2);
    }

    private void checkPredict() throws Exception {
        Protocol.Batch batch = Protocol.readPredict(body());
        same(field("dtype"), InputType.NAMES.get(batch.dtype()));
        same(field("dimensions"), String.valueOf(batch.dimensions()));
        same(field("row_bytes"), String.valueOf(batch.rowBytes()));
        same(all("row").stream().map(row -> ByteBuffer.wrap(hex(row))).toList(), batch.rows());
    }

    private ByteBuffer results(long id) throws Exception {
        Map<Integer, String> failures = new HashMap<>();
        for (String failure : all("failure")) {
            String[] parts = failure.split(" ", 2);
            failures.put(Integer.parseInt(parts[0]), parts[1]);
        }
        Outputs outputs = new Outputs();
        for (String output : all("output")) {
            String failure = failures.get(outputs.count());
            if (failure == null) {
                outputs.addJson(output);
            } else {
                outputs.fail(failure);
            }
        }
        return Protocol.results(id, outputs, Long.parseUnsignedLong(field("evaluation_us")));
    }
}
