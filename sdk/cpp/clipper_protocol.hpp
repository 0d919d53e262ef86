// What needs no I/O: a container's half of proto/container-protocol.md as values and bytes, and the call of the model.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the protocol is little-endian, and is read as it comes");

namespace clipper {

enum Kind : uint8_t { HELLO = 1, WELCOME, PREDICT, RESULTS, ERROR, PING, PONG };
constexpr const char* kTypes[] = {"", "int32", "int64", "float32", "float64", "uint8", "bool", "string", "bytes"};
constexpr size_t kTypeBytes[] = {0, 4, 8, 4, 8, 1, 1, 1, 1}, kString = 7, kMaxDimensions = 8;
constexpr size_t kHeaderBytes = 16, kMaxBody = 1 << 30, kMaxHello = 8 + 0xFFFF, kMaxMessage = 4'096;
constexpr size_t kMaxRows = 65'536, kMaxThrows = 16;
struct ProtocolViolation : std::runtime_error { using runtime_error::runtime_error; };  // ends the connection
struct BatchFailed : std::runtime_error { using runtime_error::runtime_error; };        // is the answer to the batch

// What one input is, e.g. float64[784], float32[3,*,*] or string; a bare numeric type is a list of any length.
struct InputType {
  size_t dtype = 1;
  std::vector<uint32_t> shape;  // 0: any length

  explicit InputType(const std::string& text) {
    const std::string name = text.substr(0, text.find('['));
    while (dtype <= 8 && name != kTypes[dtype]) ++dtype;
    if (dtype > 8) throw std::invalid_argument("input type " + text + " is not known: expected e.g. float64[784]");
    if (name == text && dtype < kString) shape.assign(1, 0);
    for (size_t at = name.size() + 1; at < text.size() && text[at] != ']'; at = text.find_first_of(",]", at) + 1)
      shape.push_back(text[at] == '*' ? 0 : uint32_t(std::stoul(text.substr(at))));
    if (shape.size() > kMaxDimensions) throw std::invalid_argument("input type " + text + " has over 8 dimensions");
  }
  // How many dimensions a row carries before its data: all, if its size alone does not tell them.
  size_t leading() const { return shape.size() > 1 && std::count(shape.begin(), shape.end(), 0) ? shape.size() : 0; }
  bool accepts(const InputType& other) const {
    return dtype == other.dtype && std::equal(shape.begin(), shape.end(), other.shape.begin(), other.shape.end(),
                                              [](uint32_t mine, uint32_t its) { return mine == 0 || mine == its; });
  }
};

// One input: its elements in C order, or a text's bytes. Valid during the call that it is given to.
struct Row {
  const char* data = nullptr;
  size_t size_bytes = 0;
  uint32_t shape[kMaxDimensions] = {};  // as many as the input type has

  template <class T> size_t count() const { return size_bytes / sizeof(T); }
  template <class T> T at(size_t index) const {  // compiles to a load, but may read where no T is aligned
    T value;
    std::memcpy(&value, data + index * sizeof(T), sizeof(T));
    return value;
  }
  std::string_view text() const { return {data, size_bytes}; }
};
using Rows = std::vector<Row>;

// Appends a number, a text, or a sequence of these. Throws std::domain_error for what JSON cannot carry.
template <class T> void append_json(std::string& json, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    json += value ? "true" : "false";
  } else if constexpr (std::is_arithmetic_v<T>) {
    if (!std::isfinite(double(value))) throw std::domain_error("output is NaN or infinity, which JSON cannot carry");
    char digits[64];
    json.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);  // the shortest that reads the same
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    json += '"';
    for (const char c : std::string_view(value)) {
      char escape[8];
      if (c == '"' || c == '\\') json += '\\';
      if (uint8_t(c) >= 0x20) json += c;
      else json.append(escape, size_t(std::snprintf(escape, sizeof escape, "\\u%04x", c)));
    }
    json += '"';
  } else {
    const size_t start = json.size();
    for (const auto& element : value) append_json(json += json.size() == start ? '[' : ',', element);
    json += json.size() == start ? "[]" : "]";
  }
}

// A batch's outputs: one add or fail an input, in the inputs' order.
struct Outputs {
  std::string text;  // a line an output
  std::map<uint32_t, std::string> failures;
  uint32_t count = 0;

  template <class T> void add(const T& value) {  // a number, a text, or a sequence of these
    std::string json;
    try { append_json(json, value); } catch (const std::domain_error& error) { return fail(error.what()); }
    add_json(std::move(json));
  }
  void add_json(std::string json) {
    std::replace(json.begin(), json.end(), '\n', ' ');  // white space in JSON, but the end of an output here
    text += (count++ ? "\n" : "") + json;
  }
  void fail(std::string message) {
    size_t size = std::min(message.size(), kMaxMessage);
    while (size < message.size() && size && (message[size] & 0xC0) == 0x80) --size;  // not inside a character
    failures[count] = message.substr(0, size);
    add_json("");
  }
};

// The codec. Frames and bodies are strings of bytes.
template <class... T> std::string pack(const T&... values) {
  std::string bytes;
  (bytes.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
  return bytes;
}
template <class T> T get(std::string_view bytes, size_t offset) {
  return Row{bytes.data() + offset, sizeof(T)}.at<T>(0);
}

inline std::string frame(Kind kind, uint64_t id, std::string_view body) {
  return pack(uint32_t(body.size()), uint32_t(kind), id).append(body);  // flags and reserved are 0
}

struct Header { size_t body_bytes; Kind kind; uint64_t id; };

inline Header read_header(std::string_view bytes, size_t max_body) {
  const auto body_bytes = get<uint32_t>(bytes, 0), kind = get<uint32_t>(bytes, 4);
  if (kind < HELLO || kind > PONG || body_bytes > max_body) throw ProtocolViolation("a frame's header is malformed");
  return {body_bytes, Kind(kind), get<uint64_t>(bytes, 8)};
}

inline std::string read_hello(std::string_view body) {  // returns the token
  if (body.size() < 8 || body.substr(0, 4) != "CLPR") throw ProtocolViolation("HELLO does not begin with CLPR");
  if (get<uint16_t>(body, 4) != 1) throw ProtocolViolation("caller speaks another protocol than 1");
  if (get<uint16_t>(body, 6) != body.size() - 8) throw ProtocolViolation("HELLO's token is not of the size it says");
  return std::string(body.substr(8));
}

struct Welcome { std::string model, version, input_type, runtime; uint32_t max_batch; };  // 0: no bound of its own

inline std::string welcome(const Welcome& said) {
  std::string json = "{\"protocol\":1";
  append_json(json += ",\"model\":", said.model);
  append_json(json += ",\"version\":", said.version);
  append_json(json += ",\"input_type\":", said.input_type);
  append_json(json += ",\"runtime\":", said.runtime);
  json += ",\"max_batch\":" + (said.max_batch ? std::to_string(said.max_batch) : "null") + "}";
  return frame(WELCOME, 0, json);
}

struct Batch { size_t row_bytes, dtype, dimensions; Rows rows; };

inline Batch read_predict(std::string_view body) {  // the rows refer to the body
  if (body.size() < 16) throw ProtocolViolation("PREDICT is too short");
  const size_t rows = get<uint32_t>(body, 0), row_bytes = get<uint32_t>(body, 4);
  Batch batch{row_bytes, get<uint8_t>(body, 8), get<uint8_t>(body, 9), {}};
  size_t start = row_bytes ? 16 : 16 + (rows * 4 + 7) / 8 * 8;
  if (rows < 1 || rows > kMaxRows || batch.dtype < 1 || batch.dtype > 8 || batch.dimensions > kMaxDimensions ||
      get<uint16_t>(body, 10) || get<uint32_t>(body, 12) || start > body.size())
    throw ProtocolViolation("PREDICT has a field out of its range");
  for (size_t row = 0; row < rows; ++row, start += batch.rows.back().size_bytes) {
    const size_t size = row_bytes ? row_bytes : get<uint32_t>(body, 16 + row * 4);
    if (size > body.size() - start) throw ProtocolViolation("PREDICT ends inside its rows");
    batch.rows.push_back({body.data() + start, size});
  }
  if (start != body.size()) throw ProtocolViolation("PREDICT goes on after its rows");
  return batch;
}

// Gives each row its shape, taking off the dimensions that it carries.
inline void shape_rows(Batch& batch, const InputType& type) {
  const size_t rank = type.shape.size(), head_bytes = 4 * type.leading(), element_bytes = kTypeBytes[type.dtype];
  bool good = batch.dtype == type.dtype && batch.dimensions == type.leading();
  for (Row& row : batch.rows) {
    if (!good || row.size_bytes < head_bytes) throw BatchFailed("rows are not of the model's type");
    std::copy(type.shape.begin(), type.shape.end(), row.shape);
    std::memcpy(row.shape, row.data, head_bytes);
    row.data += head_bytes, row.size_bytes -= head_bytes;
    if (rank == 1 && type.shape[0] == 0) row.shape[0] = uint32_t(row.size_bytes / element_bytes);
    size_t bytes = element_bytes;
    for (size_t axis = 0; axis < rank && bytes <= kMaxBody; bytes *= row.shape[axis++])
      good = good && (type.shape[axis] == 0 || type.shape[axis] == row.shape[axis]);
    good = good && (type.dtype >= kString || bytes == row.size_bytes);
    if (!good) throw BatchFailed("a row has another shape than the model takes");
  }
}

inline std::string results(uint64_t id, const Outputs& outputs, uint64_t evaluation_us) {
  std::string body = pack(outputs.count, uint32_t(outputs.failures.size()), evaluation_us);
  for (const auto& [row, message] : outputs.failures) body += pack(row, uint32_t(message.size())) + message;
  body += outputs.text;
  if (body.size() > kMaxBody) throw BatchFailed("the outputs are too large for a frame");
  return frame(RESULTS, id, body);
}

struct Model {
  std::string input_type;                             // a deployment may declare a narrower one
  std::function<void(const Rows&, Outputs&)> predict;  // not called twice at once, nor always on the same thread
  uint32_t max_batch = 0;                             // 0: no bound of its own
  std::string runtime = "c++";
};

// Calls the model. What it throws fails the first input without an output, and the model goes on with those after it.
inline Outputs evaluate(const Model& model, Rows& rows) {
  Outputs outputs;
  const size_t wanted = rows.size();
  for (size_t throws = 0; outputs.count < wanted;) {
    rows.erase(rows.begin(), rows.begin() + long(rows.size() - (wanted - outputs.count)));
    std::string cause;
    try {
      model.predict(rows, outputs);
    } catch (const std::exception& error) {
      cause = std::string("the model threw: ") + error.what();
    } catch (...) {
      cause = "the model threw what is no std::exception";
    }
    if (outputs.count > wanted || (cause.empty() && outputs.count < wanted))
      throw BatchFailed("the model gave another number of outputs than inputs: expected one an input");
    // One that always throws is not called for each input: then the rest of the batch fails, too.
    const size_t failing = cause.empty() ? 0 : ++throws == kMaxThrows ? wanted : 1;
    for (size_t row = 0; row < failing && outputs.count < wanted; ++row) outputs.fail(cause);
  }
  return outputs;
}

}  // namespace clipper
