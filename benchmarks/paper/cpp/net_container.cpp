// A container of Clipper's that answers with the labels of a network in ONNX.
#include "clipper_container.hpp"
#include "onnx_net.hpp"

int main(int argc, char** argv) {
  return clipper::serve(argc, argv, [](const clipper::Options& options) {
    auto net = std::make_shared<Net>(options.at("--data"));
    return clipper::Model{"float32[784]", [net](const clipper::Rows& rows, clipper::Outputs& outputs) {
      std::vector<float> pixels;
      pixels.reserve(rows.size() * Net::width);
      for (const clipper::Row& row : rows)
        for (size_t index = 0; index < row.count<float>(); ++index) pixels.push_back(row.at<float>(index));
      for (int64_t label : net->labels(pixels)) outputs.add(label);
    }};
  });
}
