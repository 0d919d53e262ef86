import clipper.Container;
import clipper.Model;
import java.nio.FloatBuffer;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A model of a table: it answers each row with a label and a score of each kind, as two outputs with names. */
public final class RecordContainer {
    public static void main(String[] args) {
        String outputType = "label: string{\"often\", \"seldom\"}, scores: float32[2]";
        Container.serve(args, options -> new Model("age: float64, job: string?, visits: float32[*]", 0,
                rows -> rows.stream().map(RecordContainer::predict).toList(), outputType));
    }

    private static Map<String, Object> predict(Model.Row row) {
        float total = row.field("job") == null ? 0 : 1;
        for (FloatBuffer visits = row.field("visits").data().asFloatBuffer(); visits.hasRemaining(); ) {
            total += visits.get();
        }
        float[] scores = {(float) row.field("age").data().getDouble(), total};
        Map<String, Object> outputs = new LinkedHashMap<>(); // in this order
        outputs.put("label", scores[0] < scores[1] ? "often" : "seldom");
        outputs.put("scores", scores);
        return outputs;
    }
}
