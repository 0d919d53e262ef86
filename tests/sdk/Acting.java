import clipper.Container;
import clipper.Model;
import clipper.Model.Row;
import java.nio.DoubleBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Does what its input says, for tests of misbehaviour. The input type is the deployment's, float64 if it says none. */
public final class Acting {
    private static String data;

    public static void main(String[] args) {
        Container.serve(args, options -> {
            data = options.get("--data");
            if ("missing".equals(data)) {
                throw new IllegalStateException("no such data");
            }
            String declared = options.getOrDefault("--input-type", "float64");
            return new Model(declared, 16, rows -> predict(rows, declared.split("\\[")[0]));
        });
    }

    private static List<Object> predict(List<Row> rows, String dtype) throws Exception {
        List<Object> outputs = new ArrayList<>();
        for (Row row : rows) {
            if (!row.fields().isEmpty()) {
                outputs.add(describeRecord(row));
                continue;
            }
            switch (dtype) {
                case "float64" -> act(row.data().asDoubleBuffer(), outputs);
                case "float32" -> outputs.add(describe(row));
                case "string" -> outputs.add(row.text());
                default -> outputs.add(row.data().remaining());
            }
        }
        return outputs;
    }

    private static void act(DoubleBuffer values, List<Object> outputs) throws Exception {
        double first = values.hasRemaining() ? values.get() : 0;
        switch ((int) first) {
            case 1 -> throw new IllegalStateException("row says no, n\u00e9?");
            case 2 -> outputs.add(Double.NaN);
            case 3 -> outputs.add(new double[] {1.0, Double.NEGATIVE_INFINITY});
            case 4 -> outputs.add("a \"quoted\" \\ text\n\tof \u00e9 and \001");
            case 5 -> {
                while (!Files.exists(Path.of(data, "release"))) {
                    Thread.sleep(10);
                }
                outputs.add(5.0);
            }
            case 6 -> outputs.add(new double[] {0.1, 1e22, 5e-324, -1.7976931348623157e308, 1.0 / 3});
            case 7 -> outputs.add("x".repeat(4_000_000));
            case 8 -> { }
            case 9 -> outputs.add(new RuntimeException("x".repeat(200) + "\u00e9".repeat(4_000) + "z"));
            case 10 -> outputs.add(new Model.Json("{\n \"a\": [1, 2]\n}"));
            case 11 -> throw new StackOverflowError();
            case 12 -> outputs.add(new float[][] {{1.1f, 2}, {3, -1e-7f}});
            case 13 -> outputs.add(new int[][] {{1}, {2, 3}});
            case 14 -> outputs.add(new boolean[] {true, false});
            case 15 -> outputs.add(new short[] {-1, 32_767});
            case 16 -> outputs.add(new String[] {"a", "b"});
            case 17 -> outputs.add(new double[0]);
            case 18 -> outputs.add(new long[] {-1, 1L << 62});
            case 19 -> outputs.add(Model.trace().stream().map(at -> at.traceparent() + "|" + at.tracestate()).toList());
            case 60 -> outputs.add(record("é\"", new float[] {0.5f, Float.NaN}, null, new byte[] {0, -1}, 7));
            case 61 -> outputs.add(record("", new float[] {1.5f}, 2.5, new byte[0], 8));
            case 62 -> outputs.add(Map.of("other", 1));
            case 63 -> outputs.add(Map.of("label", 5, "scores", 1, "note", 1, "raw", 1, "n", 1));
            case 64 -> outputs.add(new Model.Bytes(new byte[] {'a', 'b'}));
            default -> outputs.add(first);
        }
    }

    private static Map<String, Object> record(String label, float[] scores, Double note, byte[] raw, int n) {
        Map<String, Object> record = new LinkedHashMap<>();
        record.put("label", label);
        record.put("scores", scores);
        record.put("note", note);
        record.put("raw", new Model.Bytes(raw));
        record.put("n", n);
        return record;
    }

    /** E.g. age=000000 job=- boxes[1,4]=0000. */
    private static String describeRecord(Row row) {
        List<String> told = new ArrayList<>();
        for (String name : row.fields().keySet()) {
            Row value = row.field(name);
            if (value == null) {
                told.add(name + "=-");
                continue;
            }
            byte[] bytes = new byte[value.data().remaining()];
            value.data().get(bytes);
            String shape = Arrays.toString(value.shape()).replace(" ", "").replace("[]", "");
            told.add(name + shape + "=" + HexFormat.of().formatHex(bytes));
        }
        return String.join(" ", told);
    }

    private static List<Object> describe(Row row) {
        List<Object> shapeAndSum = new ArrayList<>();
        for (int length : row.shape()) {
            shapeAndSum.add(length);
        }
        double sum = 0;
        for (int index = 0; index < row.data().remaining() / Float.BYTES; index++) {
            sum += row.data().getFloat(index * Float.BYTES);
        }
        shapeAndSum.add(sum);
        return shapeAndSum;
    }
}
