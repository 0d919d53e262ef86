package clipper;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
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
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

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

    private static void same(Object expected, Object found) {
        if (!expected.equals(found)) {
            throw new IllegalStateException("expected " + expected + ", found " + found);
        }
    }

    private void check() {
        if (field("kind").equals("INVALID")) {
            checkInvalid();
            return;
        }
        if (List.of("ASK", "ANSWER").contains(field("kind"))) {
            return; // of version 7, which this SDK does not speak
        }
        Protocol.Frame read = read();
        same(Long.parseUnsignedLong(field("id")), read.id());
        switch (read.kind()) {
            case Protocol.HELLO -> {
                same(field("token"), new String(Protocol.token(read), StandardCharsets.UTF_8));
                same(field("version"), String.valueOf(Protocol.version(read)));
            }
            case Protocol.WELCOME -> checkWelcome();
            case Protocol.PREDICT -> checkPredict(read);
            case Protocol.RESULTS -> checkFrame(results(read.id()));
            case Protocol.TYPED_RESULTS -> {
                if (field("dtype").equals(field("written_as"))) { // this SDK has float32 written as what they are
                    checkFrame(typedResults(read.id()));
                }
            }
            case Protocol.PREDICT_COLUMNS -> checkPredictColumns(read);
            case Protocol.COLUMN_RESULTS -> checkFrame(columnResults(read.id()));
            case Protocol.ERROR -> checkBody(read, Protocol.message(failure(field("message"))));
            case Protocol.PING -> checkBody(read, new byte[0]);
            default -> checkBody(read, pong());
        }
    }

    private void checkFrame(byte[] encoded) {
        same(ByteBuffer.wrap(frame), ByteBuffer.wrap(encoded));
    }

    private void checkBody(Protocol.Frame read, byte[] encoded) {
        checkFrame(Protocol.frame(read.kind(), read.id(), encoded));
    }

    private Protocol.Frame read() {
        try {
            return Protocol.read(new ByteArrayInputStream(frame), Protocol.MAX_BODY_BYTES);
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
    }

    private void checkInvalid() {
        // What else there is no container reads; and no model's rows are of what is invalid.
        boolean isRead = List.of("HEADER", "HELLO", "PREDICT", "PREDICT_COLUMNS").contains(field("as"));
        same(false, isRead && IntStream.range(1, Protocol.DTYPES.size()).anyMatch(this::isAccepted));
    }

    private boolean isAccepted(int dtype) {
        try {
            Protocol.Frame read = read();
            if (read.kind() == Protocol.HELLO) {
                Protocol.token(read);
            } else if (read.kind() == Protocol.PREDICT) {
                Protocol.trace(read, Protocol.VERSION);
                Protocol.rows(read, new Protocol.InputType(dtype, new int[1]));
            } else if (read.kind() == Protocol.PREDICT_COLUMNS) {
                Protocol.trace(read, Protocol.VERSION);
                Columns.read(read);
            }
            return true;
        } catch (RuntimeException refused) {
            return false;
        }
    }

    private void checkWelcome() {
        String json = field("json");
        int maxBatch = text(json, "max_batch").equals("null") ? 0 : Integer.parseInt(text(json, "max_batch"));
        String inputType = text(json, "input_type");
        boolean hasType = json.contains("output_type");
        int protocol = Integer.parseInt(text(json, "protocol"));
        String outputType = hasType ? text(json, "output_type") : null;
        Model model = new Model(inputType, maxBatch, null);
        byte[] welcome = Protocol.welcome(protocol, text(json, "model"), text(json, "version"), model, outputType);
        String written = new String(welcome, StandardCharsets.UTF_8);
        for (String name : List.of("protocol", "model", "version", "input_type", "max_batch")) {
            same(text(json, name), text(written, name));
        }
        same(String.valueOf(outputType), text(written, "output_type"));
        Protocol.InputType.parse(inputType);
    }

    /** A field of a flat JSON object without escapes. */
    private static String text(String json, String name) {
        var found = Pattern.compile("\"" + name + "\": ?(?:\"([^\"]*)\"|(\\w+))").matcher(json);
        same(true, found.find());
        return found.group(1) != null ? found.group(1) : found.group(2);
    }

    private void checkPredict(Protocol.Frame read) {
        int dimensions = Integer.parseInt(field("dimensions"));
        int dtype = Protocol.DTYPES.indexOf(field("dtype"));
        Protocol.InputType type = new Protocol.InputType(dtype, new int[Math.max(1, dimensions)]);
        same(all("trace"), Protocol.trace(read, Protocol.VERSION).stream()
                .map(at -> (at.traceparent() + " " + at.tracestate()).stripTrailing()).toList());
        List<ByteBuffer> rows = Protocol.rows(read, type);
        same(all("row").stream().map(row -> ByteBuffer.wrap(hex(row))).toList(), rows);
        rows.forEach(type::row);
    }

    private List<Columns.Column> columns() {
        return IntStream.range(0, all("column").size()).mapToObj(at -> {
            byte[] present = hex(all("present").get(at));
            int[] lengths = numbers(all("lengths").get(at));
            int dtype = Protocol.DTYPES.indexOf(all("dtype").get(at));
            int writtenAs = Math.max(0, Protocol.DTYPES.indexOf(all("written_as").get(at))); // 0 is JSON
            return new Columns.Column(all("column").get(at), dtype, writtenAs, numbers(all("shape").get(at)),
                    present.length == 0 ? null : present, lengths.length == 0 ? null : lengths,
                    ByteBuffer.wrap(hex(all("data").get(at))));
        }).toList();
    }

    private static int[] numbers(String text) {
        return Pattern.compile(" ").splitAsStream(text).filter(number -> !number.isEmpty())
                .mapToInt(Integer::parseInt).toArray();
    }

    private void checkPredictColumns(Protocol.Frame read) {
        same(all("trace"), Protocol.trace(read, Protocol.VERSION).stream().map(Model.Span::traceparent).toList());
        List<Columns.Column> expected = columns();
        List<Columns.Column> found = Columns.read(read);
        same(expected.stream().map(Columns.Column::type).toList(), found.stream().map(Columns.Column::type).toList());
        var type = Protocol.InputType.parse(
                expected.stream().map(Columns.Column::type).collect(Collectors.joining(", ")));
        List<Model.Row> rows = Columns.rows(found, type);
        for (int at = 0; at < expected.size(); at++) {
            Columns.Column column = expected.get(at);
            same(column.data(), found.get(at).data());
            same(true, Arrays.equals(column.lengths(), found.get(at).lengths()));
            for (int row = 0; row < rows.size(); row++) {
                same(column.isMissing(row), rows.get(row).field(column.name()) == null);
            }
        }
    }

    private byte[] columnResults(long id) {
        SortedMap<Integer, byte[]> failures = new TreeMap<>();
        for (String failure : all("failure")) {
            String[] rowAndMessage = failure.split(" ", 2);
            failures.put(Integer.parseInt(rowAndMessage[0]), Protocol.message(failure(rowAndMessage[1])));
        }
        long evaluationUs = Long.parseUnsignedLong(field("evaluation_us"));
        return Columns.frame(id, Integer.parseInt(field("rows")), columns(), evaluationUs, failures);
    }

    private byte[] pong() {
        return Protocol.littleEndian(new byte[8]).putLong(Long.parseUnsignedLong(field("busy_us"))).array();
    }

    private byte[] typedResults(long id) {
        int[] shape = numbers(field("shape"));
        List<ByteBuffer> rows = new ArrayList<>(all("row").stream().map(row -> ByteBuffer.wrap(hex(row))).toList());
        SortedMap<Integer, byte[]> failures = new TreeMap<>();
        for (String failure : all("failure")) {
            String[] rowAndMessage = failure.split(" ", 2);
            failures.put(Integer.parseInt(rowAndMessage[0]), Protocol.message(failure(rowAndMessage[1])));
        }
        return new Protocol.Typed(Protocol.DTYPES.indexOf(field("dtype")), shape, rows, failures)
                .frame(id, Long.parseUnsignedLong(field("evaluation_us")));
    }

    private byte[] results(long id) {
        List<Object> outputs = new ArrayList<>();
        all("output").forEach(json -> outputs.add(new Model.Json(json)));
        for (String failure : all("failure")) {
            String[] rowAndMessage = failure.split(" ", 2);
            outputs.set(Integer.parseInt(rowAndMessage[0]), failure(rowAndMessage[1]));
        }
        return Protocol.results(id, outputs, () -> Long.parseUnsignedLong(field("evaluation_us")));
    }

    @SuppressWarnings("serial")
    private static RuntimeException failure(String message) {
        return new RuntimeException() {
            @Override
            public String toString() {
                return message;
            }
        };
    }
}
