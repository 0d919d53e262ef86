import clipper.Container;
import clipper.InputType;
import clipper.Model;
import clipper.Outputs;
import clipper.Row;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Does what its input says, for tests of misbehaviour. The input type is the deployment's, float64 if it says none. */
public final class Acting {
    private static String data;

    public static void main(String[] args) {
        Container.serve(args, options -> {
            data = options.data();
            if ("missing".equals(data)) {
                throw new IllegalStateException("no such data");
            }
            String declared = options.inputType() == null ? "float64" : options.inputType();
            int dtype = InputType.parse(declared).dtype();
            return new Model(declared, (rows, outputs) -> predict(rows, outputs, dtype), 16, "acting");
        });
    }

    private static void predict(List<Row> rows, Outputs outputs, int dtype) throws Exception {
        for (Row row : rows) {
            switch (dtype) {
                case 4 -> act(row.doubles(), outputs);
                case 3 -> describe(row, outputs);
                case 7 -> outputs.add(row.text());
                default -> outputs.add(row.data().remaining());
            }
        }
    }

    private static void act(double[] values, Outputs outputs) throws Exception {
        switch (values.length > 0 ? (int) values[0] : 0) {
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
            case 9 -> outputs.fail("x".repeat(3_000) + "y".repeat(1_095) + "\u00e9" + "z".repeat(200));
            case 10 -> outputs.addJson("{\n \"a\": [1, 2]\n}");
            case 11 -> throw new StackOverflowError();
            default -> outputs.add(values.length > 0 ? values[0] : 0.0);
        }
    }

    private static void describe(Row row, Outputs outputs) {
        List<Object> shapeAndSum = new ArrayList<>();
        for (int length : row.shape()) {
            shapeAndSum.add(length);
        }
        double sum = 0;
        for (int index = 0; index < row.data().remaining() / Float.BYTES; index++) {
            sum += row.data().getFloat(index * Float.BYTES);
        }
        shapeAndSum.add(sum);
        outputs.add(shapeAndSum);
    }
}
