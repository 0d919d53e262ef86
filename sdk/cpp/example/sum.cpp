// A model that answers each input, a list of numbers, with its sum.
#include "clipper_container.hpp"

static void predict(const clipper::Rows& rows, clipper::Outputs& outputs) {
  for (const clipper::Row& row : rows) {
    double sum = 0;
    for (size_t index = 0; index < row.count<double>(); ++index) sum += row.at<double>(index);
    outputs.add(sum);
  }
}

int main(int argc, char** argv) {
  return clipper::serve(argc, argv, [](const clipper::Options&) { return clipper::Model{"float64", predict}; });
}
