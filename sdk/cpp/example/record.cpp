// A model of a table: it answers each row with a label and a score of each kind, as two outputs with names.
#include "clipper_container.hpp"

static void predict(const clipper::Rows& rows, clipper::Outputs& outputs) {
  const clipper::Values &age = rows.column("age"), &job = rows.column("job"), &visits = rows.column("visits");
  for (size_t row = 0; row < rows.size(); ++row) {
    float total = job[row].is_missing ? 0.0F : 1.0F;
    for (size_t visit = 0; visit < visits[row].count<float>(); ++visit) total += visits[row].at<float>(visit);
    const std::vector<float> scores{float(age[row].at<double>(0)), total};
    outputs.add_record("label", scores[0] < scores[1] ? "often" : "seldom", "scores", scores);
  }
}

int main(int argc, char** argv) {
  return clipper::serve(argc, argv, [](const clipper::Options&) {
    clipper::Model model{"age: float64, job: string?, visits: float32[*]", predict};
    model.output_type = "label: string{\"often\", \"seldom\"}, scores: float32[2]";
    return model;
  });
}
