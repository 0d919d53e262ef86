// Reads proto/vectors/*.txt, given as arguments: a container's half of the protocol has to agree with each of them.
#include "clipper_container.hpp"

#include <fstream>
#include <set>
#include <sstream>

using namespace clipper;

struct Vector {
  std::multimap<std::string, std::string> fields;
  std::string frame;

  const std::string& operator[](const std::string& field) const {
    const auto found = fields.find(field);
    if (found == fields.end()) throw std::runtime_error("the vector has no " + field);
    return found->second;
  }
  std::vector<std::string> all(const std::string& field) const {
    std::vector<std::string> values;
    for (auto [at, end] = fields.equal_range(field); at != end; ++at) values.push_back(at->second);
    return values;
  }
};

static std::string from_hex(const std::string& hex) {
  std::string bytes, digits;
  for (const char c : hex)
    if (c != ' ' && (digits += c).size() == 2) {
      bytes += char(std::stoi(digits, nullptr, 16));
      digits.clear();
    }
  return bytes;
}

static Vector read(const char* path) {
  std::ifstream file(path);
  Vector vector;
  std::string line;
  while (std::getline(file, line) && line != "frame:") {
    const size_t colon = line.find(':');
    if (line[0] != '#') vector.fields.emplace(line.substr(0, colon), line.substr(std::min(colon + 2, line.size())));
  }
  while (std::getline(file, line)) vector.frame += from_hex(line);
  return vector;
}

static void check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error("it differs in " + what);
}

static std::string text_of(const std::string& json, const std::string& field) {  // of a flat object without escapes
  const size_t name = json.find('"' + field + '"'), start = json.find('"', json.find(':', name)) + 1;
  return json.substr(start, json.find('"', start) - start);
}

static uint32_t number_of(const std::string& json, const std::string& field) {  // null is 0
  return uint32_t(std::strtoul(json.c_str() + json.find(':', json.find('"' + field + '"')) + 1, nullptr, 10));
}

static void check_welcome(const Vector& vector) {
  const std::string& json = vector["json"];
  Model model{text_of(json, "input_type"), nullptr, number_of(json, "max_batch")};
  const Options options{{"--model", text_of(json, "model")}, {"--version", text_of(json, "version")}};
  const auto version = uint16_t(number_of(json, "protocol"));
  const bool has_type = json.find("output_type") != std::string::npos;
  if (has_type) model.output_type = text_of(json, "output_type");
  const std::string written = welcome(model, options, version).substr(sizeof(Header));
  if (has_type) check(text_of(written, "output_type") == model.output_type, "output_type");
  for (const char* field : {"model", "version", "input_type"})
    check(text_of(written, field) == text_of(json, field), field);
  for (const char* field : {"protocol", "max_batch"}) check(number_of(written, field) == number_of(json, field), field);
  InputType{model.input_type};
}

static InputType type_of(const std::string& dtype, int dimensions) {
  std::string open = dimensions ? "[*" : "";
  for (int dimension = 1; dimension < dimensions; ++dimension) open += ",*";
  return InputType(dtype + open + (dimensions ? "]" : ""));
}

static void check_predict(const Vector& vector, std::string_view body) {
  std::vector<std::string> trace;
  for (const auto& [traceparent, tracestate] : take_trace(body, kVersion))
    trace.push_back(std::string(traceparent) + (tracestate.empty() ? "" : " ") + std::string(tracestate));
  check(trace == vector.all("trace"), "the trace");
  const InputType type = type_of(vector["dtype"], std::stoi(vector["dimensions"]));
  const Rows read = read_predict(body, type);
  const std::vector<std::string> rows = vector.all("row");
  check(read.size() == rows.size(), "the number of rows, or it took them for ones of another type");
  for (size_t row = 0; row < rows.size(); ++row) {
    const std::string data = from_hex(rows[row]);
    check(read[row].bytes == data.substr(type.head_bytes), "a row");
    for (size_t axis = 0; axis < type.head_bytes / 4; ++axis)
      check(read[row].shape[axis] == get<uint32_t>(data, 4 * axis), "a row's dimensions");
  }
}

static std::vector<Column> columns_in(const Vector& vector) {
  const auto part = [&](const char* field, size_t index) { return vector.all(field).at(index); };
  std::vector<Column> columns;
  for (const std::string& name : vector.all("column")) {
    const size_t index = columns.size();
    Column column{name};
    while (part("dtype", index) != kTypes[column.dtype]) ++column.dtype;
    const bool is_json = part("written_as", index) == "json";
    while (!is_json && part("written_as", index) != kTypes[column.written_as]) ++column.written_as;
    std::istringstream shape(part("shape", index)), lengths(part("lengths", index));
    for (uint32_t length; shape >> length;) column.shape.push_back(length);
    for (uint32_t length; lengths >> length;) column.lengths.push_back(length);
    column.present = from_hex(part("present", index));
    column.data = from_hex(part("data", index));
    columns.push_back(column);
  }
  return columns;
}

static void check_predict_columns(const Vector& vector, std::string_view body) {
  std::vector<std::string> trace;
  for (const Span& span : take_trace(body, kVersion, PREDICT_COLUMNS)) trace.emplace_back(span.traceparent);
  check(trace == vector.all("trace"), "the trace");
  const std::vector<Column> columns = columns_in(vector);
  std::string type;
  for (const Column& column : columns) type += (type.empty() ? "" : ", ") + type_of({column});
  const Rows rows = read_columns(body, InputType(type));
  check(rows.columns.size() == columns.size(), "the number of columns, or it took them for ones of another type");
  for (const Column& column : columns) {
    const Values& values = rows.column(column.name);
    std::string data;
    for (size_t row = 0; row < rows.size(); ++row) {
      const bool is_missing = !column.present.empty() && !(column.present[row / 8] >> row % 8 & 1);
      check(values[row].is_missing == is_missing, "which values are missing");
      const bool has_shape = column.dtype < kString && column.shape.size() > 1 && !column.lengths.empty();
      for (size_t axis = 0; has_shape && axis < column.shape.size(); ++axis) data += pack(values[row].shape[axis]);
      data += values[row].bytes;
    }
    check(data == column.data, "the values of " + column.name);
  }
}

static std::string encoded_column_results(const Vector& vector, uint64_t id) {
  std::map<size_t, std::string> failures;
  for (const std::string& failure : vector.all("failure"))
    failures[std::stoul(failure)] = failure.substr(failure.find(' ') + 1);
  Outputs outputs;
  while (outputs.count < std::stoul(vector["rows"]))
    failures.count(outputs.count) ? outputs.fail(failures[outputs.count]) : outputs.add(0);
  return column_results(id, outputs, columns_in(vector), std::stoll(vector["evaluation_us"]));
}

static std::string encoded_results(const Vector& vector, uint64_t id) {
  std::map<size_t, std::string> failures;
  for (const std::string& failure : vector.all("failure"))
    failures[std::stoul(failure)] = failure.substr(failure.find(' ') + 1);
  Outputs outputs;
  for (const std::string& output : vector.all("output"))
    failures.count(outputs.count) ? outputs.fail(failures[outputs.count]) : outputs.add_json(output);
  return results(id, outputs, std::stoll(vector["evaluation_us"]));
}

static std::string encoded_typed_results(const Vector& vector, uint64_t id) {
  std::map<size_t, std::string> failures;
  for (const std::string& failure : vector.all("failure"))
    failures[std::stoul(failure)] = failure.substr(failure.find(' ') + 1);
  Outputs outputs;
  for (const std::string& row : vector.all("row")) {
    Output output{0, {}, from_hex(row)};
    while (vector["dtype"] != kTypes[output.dtype]) ++output.dtype;
    std::istringstream lengths(vector["shape"]);
    for (uint32_t length; lengths >> length;) output.shape.push_back(length);
    failures.count(outputs.count) ? outputs.fail(failures[outputs.count]) : outputs.keep(output);
  }
  return typed_results(id, outputs, *outputs.form(), std::stoll(vector["evaluation_us"]));
}

static void check_valid(const Vector& vector) {
  const Header header = read_header(vector.frame, kMaxBody);
  const std::string body = vector.frame.substr(sizeof(Header));
  const uint64_t id = std::stoull(vector["id"]);
  check(header.id == id && header.body_bytes == body.size(), "the header");
  switch (header.kind) {
    case HELLO:
      check(get<uint16_t>(body, 4) == std::stoul(vector["version"]), "version");
      return check(read_hello(body) == vector["token"], "token");
    case WELCOME: return check_welcome(vector);
    case PREDICT: return check_predict(vector, body);
    case RESULTS: return check(encoded_results(vector, id) == vector.frame, "the frame");
    case TYPED_RESULTS:
      if (vector["written_as"] != vector["dtype"]) return;  // this SDK has float32 written as what they are
      return check(encoded_typed_results(vector, id) == vector.frame, "the frame");
    case PREDICT_COLUMNS: return check_predict_columns(vector, body);
    case COLUMN_RESULTS: return check(encoded_column_results(vector, id) == vector.frame, "the frame");
    case ERROR: return check(frame(ERROR, id, vector["message"]) == vector.frame, "the frame");
    case PING: return check(frame(PING, id, "") == vector.frame, "the frame");
    case PONG: return check(frame(PONG, id, pack(uint64_t(std::stoull(vector["busy_us"])))) == vector.frame, "the frame");
  }
}

static bool is_refused(const Vector& vector) {
  const std::string body = vector.frame.substr(sizeof(Header)), as = vector["as"];
  try {
    read_header(vector.frame, kMaxBody);
    if (as == "HELLO") read_hello(body);
    if (as == "PREDICT_COLUMNS") read_columns(body, InputType("age: float64"));
    const size_t dtype = as == "PREDICT" ? size_t(body.at(8)) : 0;
    const InputType type(kTypes[0 < dtype && dtype < std::size(kTypes) ? dtype : 1]);
    std::string_view rows = body;
    if (as == "PREDICT") take_trace(rows, kVersion);
    return as == "PREDICT" && read_predict(rows, type).empty();  // if not a violation, of a type that there is not
  } catch (const std::runtime_error&) {
    return true;
  }
}

int main(int argc, char** argv) {
  int wrong = 0, checked = 0;
  for (const char* const* path = argv + 1; path < argv + argc; ++path, ++checked) try {
      const Vector vector = read(*path);
      const bool invalid = vector["kind"] == "INVALID";
      // A container reads no WELCOME, RESULTS, TYPED_RESULTS, COLUMN_RESULTS or PONG.
      const std::set<std::string> read_kinds{"HEADER", "HELLO", "PREDICT", "PREDICT_COLUMNS"};
      const bool is_read = !invalid || read_kinds.count(vector["as"]);
      if (vector["kind"] == "ASK" || vector["kind"] == "ANSWER") continue;  // of version 7, which this SDK does not speak
      if (!invalid) check_valid(vector);
      else if (is_read) check(is_refused(vector), "that it has to be refused");
    } catch (const std::exception& error) {
      std::cerr << *path << ": " << error.what() << std::endl;
      ++wrong;
    }
  std::cout << checked << " vectors, " << wrong << " wrong" << std::endl;
  return wrong || !checked;
}
