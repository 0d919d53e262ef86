import clipper.Container;
import clipper.Model;
import java.nio.DoubleBuffer;
import java.util.List;

/** A model that answers each input, a list of numbers, with its sum. */
public final class SumContainer {
    public static void main(String[] args) {
        Container.serve(args, options -> new Model("float64", 0, SumContainer::predict));
    }

    private static List<Double> predict(List<Model.Row> rows) {
        return rows.stream().map(SumContainer::sum).toList();
    }

    private static double sum(Model.Row row) {
        double sum = 0;
        for (DoubleBuffer numbers = row.data().asDoubleBuffer(); numbers.hasRemaining(); ) {
            sum += numbers.get();
        }
        return sum;
    }
}
