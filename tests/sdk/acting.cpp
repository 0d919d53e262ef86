// Does what its input says, for tests of misbehaviour. The input type is the deployment's, float64 if it says none.
#include <limits>

#include "clipper_container.hpp"

using clipper::Outputs;
using clipper::Row;

static std::string g_data;

static void act(const Row& row, Outputs& outputs) {
  switch (row.count<double>() ? int(row.at<double>(0)) : 0) {
    case 1: throw std::runtime_error("row says no, né?");
    case 2: return outputs.add(std::numeric_limits<double>::quiet_NaN());
    case 3: return outputs.add(std::vector<double>{1.0, -std::numeric_limits<double>::infinity()});
    case 4: return outputs.add("a \"quoted\" \\ text\n\tof é and \x01");
    case 5:
      while (access((g_data + "/release").c_str(), F_OK) < 0) usleep(10'000);
      return outputs.add(5.0);
    case 6: return outputs.add(std::vector<double>{0.1, 1e22, 5e-324, -1.7976931348623157e308, 1.0 / 3});
    case 7: return outputs.add(std::string(4'000'000, 'x'));
    case 8: return;
    case 9: return outputs.fail(std::string(3'000, 'x') + std::string(1'095, 'y') + "\u00e9" + std::string(200, 'z'));
    case 10: return outputs.add_json("{\n \"a\": [1, 2]\n}");
    case 11: throw 11;
    case 12: return outputs.add(std::vector<std::vector<float>>{{1.1F, 2}, {3, -1e-7F}});
    case 13: return outputs.add(std::vector<std::vector<int>>{{1}, {2, 3}});
    case 14: return outputs.add(std::vector<bool>{true, false});
    case 15: return outputs.add(std::vector<short>{-1, 32'767});
    case 16: return outputs.add(std::vector<std::string>{"a", "b"});
    case 17: return outputs.add(std::vector<double>{});
    case 18: return outputs.add(std::vector<long>{-1, 1L << 62});
    case 19: {
      std::vector<std::string> told;
      for (const clipper::Span& span : clipper::current_trace)
        told.push_back(std::string(span.traceparent) + "|" + std::string(span.tracestate));
      return outputs.add(told);
    }
    case 60: return outputs.add_record("label", "é\"", "scores", std::vector<float>{0.5F, std::nanf("")}, "note",
                                       std::optional<double>(), "raw", clipper::Bytes{{"\0\xff", 2}}, "n", 7);
    case 61: return outputs.add_record("label", std::string(), "scores", std::vector<float>{1.5F}, "note",
                                       std::optional<double>(2.5), "raw", clipper::Bytes{""}, "n", 8);
    case 62: return outputs.add_record("other", 1);
    case 63: return outputs.add_record("label", 5, "scores", 1, "note", 1, "raw", 1, "n", 1);
    case 64: return outputs.add(clipper::Bytes{"ab"});
    default: return outputs.add(row.count<double>() ? row.at<double>(0) : 0.0);
  }
}

static void describe(const Row& row, Outputs& outputs, size_t rank) {
  std::vector<double> shape_and_sum(row.shape.begin(), row.shape.begin() + long(rank));
  double sum = 0;
  for (size_t index = 0; index < row.count<float>(); ++index) sum += double(row.at<float>(index));
  shape_and_sum.push_back(sum);
  outputs.add(shape_and_sum);
}

// E.g. age=000000 job=- boxes[1,4]=0000
static void describe_records(const clipper::Rows& rows, Outputs& outputs, const clipper::InputType& type) {
  for (size_t row = 0; row < rows.size(); ++row) {
    std::string told;
    for (size_t index = 0; index < rows.columns.size(); ++index) {
      const auto& [name, values] = rows.columns[index];
      const Row& value = rows.column(name)[row];
      told += (told.empty() ? "" : " ") + std::string(name);
      for (size_t axis = 0; !value.is_missing && axis < type.fields[index].rank; ++axis)
        told += (axis ? "," : "[") + std::to_string(value.shape[axis]) + (axis + 1 < type.fields[index].rank ? "" : "]");
      told += value.is_missing ? "=-" : "=";
      for (const char c : value.bytes) told += {"0123456789abcdef"[uint8_t(c) / 16], "0123456789abcdef"[c & 15]};
    }
    outputs.add(told);
  }
}

int main(int argc, char** argv) {
  return clipper::serve(argc, argv, [](const clipper::Options& options) {
    if (options.at("--data") == "missing") throw std::runtime_error("no such data");
    g_data = options.at("--data");
    const std::string given = options.at("--input-type"), declared = given.empty() ? "float64" : given;
    const clipper::InputType type(declared);
    auto predict = [type](const clipper::Rows& rows, Outputs& outputs) {
      if (!type.fields.empty()) return describe_records(rows, outputs, type);
      for (const Row& row : rows) {
        if (type.dtype == 4) act(row, outputs);
        else if (type.dtype == 3) describe(row, outputs, type.rank);
        else if (type.dtype == 7) outputs.add(row.bytes);
        else outputs.add(row.bytes.size());
      }
    };
    return clipper::Model{declared, predict, 16};
  });
}
