import clipper.Container;
import clipper.Model;
import clipper.Outputs;
import clipper.Row;
import java.util.List;

/** A model that answers each input, a list of numbers, with its sum. */
public final class SumContainer {
    public static void main(String[] args) {
        Container.serve(args, options -> new Model("float64", SumContainer::predict));
    }

    private static void predict(List<Row> rows, Outputs outputs) {
        for (Row row : rows) {
            double sum = 0;
            for (double value : row.doubles()) {
                sum += value;
            }
            outputs.add(sum);
        }
    }
}
