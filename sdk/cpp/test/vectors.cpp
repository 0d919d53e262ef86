// Reads proto/vectors/*.txt, given as arguments: a container's half of the protocol has to agree with each of them.
#include "clipper_protocol.hpp"

#include <fstream>
#include <iostream>

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
  const Welcome said{text_of(json, "model"), text_of(json, "version"), text_of(json, "input_type"),
                     text_of(json, "runtime"), number_of(json, "max_batch")};
  const std::string written = welcome(said).substr(kHeaderBytes);
  for (const char* field : {"model", "version", "input_type", "runtime"})
    check(text_of(written, field) == text_of(json, field), field);
  for (const char* field : {"protocol", "max_batch"}) check(number_of(written, field) == number_of(json, field), field);
  InputType{said.input_type};
}

static void check_predict(const Vector& vector, const std::string& body) {
  const Batch batch = read_predict(body);
  const std::vector<std::string> rows = vector.all("row");
  check(kTypes[batch.dtype] == vector["dtype"], "dtype");
  check(std::to_string(batch.dimensions) == vector["dimensions"], "dimensions");
  check(std::to_string(batch.row_bytes) == vector["row_bytes"], "row_bytes");
  check(batch.rows.size() == rows.size(), "rows");
  for (size_t row = 0; row < rows.size(); ++row) check(batch.rows[row].text() == from_hex(rows[row]), "a row");
}

static std::string encoded_results(const Vector& vector, uint64_t id) {
  std::map<size_t, std::string> failures;
  for (const std::string& failure : vector.all("failure"))
    failures[std::stoul(failure)] = failure.substr(failure.find(' ') + 1);
  Outputs outputs;
  for (const std::string& output : vector.all("output"))
    failures.count(outputs.count) ? outputs.fail(failures[outputs.count]) : outputs.add_json(output);
  return results(id, outputs, std::stoull(vector["evaluation_us"]));
}

static void check_valid(const Vector& vector) {
  const Header header = read_header(vector.frame, kMaxBody);
  const std::string body = vector.frame.substr(kHeaderBytes);
  const uint64_t id = std::stoull(vector["id"]);
  check(header.id == id && header.body_bytes == body.size(), "the header");
  switch (header.kind) {
    case HELLO: return check(read_hello(body) == vector["token"], "token");
    case WELCOME: return check_welcome(vector);
    case PREDICT: return check_predict(vector, body);
    case RESULTS: return check(encoded_results(vector, id) == vector.frame, "the frame");
    case ERROR: return check(frame(ERROR, id, vector["message"]) == vector.frame, "the frame");
    case PING: return check(frame(PING, id, "") == vector.frame, "the frame");
    case PONG: return check(frame(PONG, id, pack(uint64_t(std::stoull(vector["busy_us"])))) == vector.frame, "the frame");
  }
}

static bool is_refused(const Vector& vector) {
  try {
    read_header(vector.frame, kMaxBody);
    if (vector["as"] == "HELLO") read_hello(vector.frame.substr(kHeaderBytes));
    if (vector["as"] == "PREDICT") read_predict(std::string_view(vector.frame).substr(kHeaderBytes));
    return false;
  } catch (const ProtocolViolation&) {
    return true;
  }
}

int main(int argc, char** argv) {
  int wrong = 0, checked = 0;
  for (const char* const* path = argv + 1; path < argv + argc; ++path, ++checked) try {
      const Vector vector = read(*path);
      const bool invalid = vector["kind"] == "INVALID";
      // A container reads no WELCOME, RESULTS or PONG.
      const bool is_read = !invalid || vector["as"] == "HEADER" || vector["as"] == "HELLO" || vector["as"] == "PREDICT";
      if (!invalid) check_valid(vector);
      else if (is_read) check(is_refused(vector), "that it has to be refused");
    } catch (const std::exception& error) {
      std::cerr << *path << ": " << error.what() << std::endl;
      ++wrong;
    }
  std::cout << checked << " vectors, " << wrong << " wrong" << std::endl;
  return wrong || !checked;
}
