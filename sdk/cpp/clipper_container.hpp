// Serves a model to Clipper: C++17, Linux, GCC 11 or Clang 14 or later. See README.md and proto/container-protocol.md.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cmath>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <netdb.h>
#include <netinet/tcp.h>
#include <optional>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>
namespace clipper {
enum Kind : uint32_t {
  HELLO = 1, WELCOME, PREDICT, RESULTS, ERROR, PING, PONG, TYPED_RESULTS, PREDICT_COLUMNS, COLUMN_RESULTS
};
constexpr const char* kTypes[] = {"", "int32", "int64", "float32", "float64", "uint8", "bool", "string", "bytes"};
constexpr size_t kTypeBytes[] = {0, 4, 8, 4, 8, 1, 1, 1, 1}, kString = 7, kBytes = 8;
constexpr uint16_t kVersion = 5;  // of the protocol; callers of version 1 get no TYPED_RESULTS, of 3 no columns
constexpr size_t kMaxHello = 8 + 0xFFFF, kMaxBody = 1 << 30, kMaxRows = 65'536, kMaxMessage = 4'096;
constexpr size_t kMaxColumns = 1'000, kMaxName = 255;
constexpr size_t kMaxTrace = 128 * 1'024;
constexpr int kMaxConnections = 256, kPatienceS = 5;  // for a HELLO, and at the end for the last answer to be taken
using Options = std::map<std::string, std::string>;   // what a container is started with, e.g. options.at("--data")
struct Row {  // one input, or one field of it; valid during the call that it is given to
  std::string_view bytes;  // its elements in C order, or a text
  std::array<uint32_t, 8> shape{};  // 1 beyond the last dimension
  bool is_missing = false;  // which a field may be whose type says so: job: string?
  template <class T> size_t count() const { return bytes.size() / sizeof(T); }
  template <class T> T at(size_t index) const {  // compiles to a load, but may read where no T is aligned
    T value;
    std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
    return value;
  }
};
using Values = std::vector<Row>;
struct Rows : Values {  // if inputs are records, a row has nothing itself, and its fields are in columns
  std::vector<std::pair<std::string_view, Values>> columns;
  const Values& column(std::string_view name) const {  // the values of a field, one for each row
    for (const auto& [of, values] : columns) if (of == name) return values;
    throw std::out_of_range("the input has no field " + std::string(name));
  }
};
// E.g. float64[784], float32[3,*,*] or string; a bare numeric type is a list of any length. Or a record of fields, in
// which a bare numeric type is a number: age: float64, job: string?, "first name": string
struct InputType {
  size_t dtype = 1, rank = 0, head_bytes = 0;  // of a row's own dimensions, which stand before its data
  std::array<uint32_t, 8> shape{1, 1, 1, 1, 1, 1, 1, 1};  // 0: any length
  bool is_nullable = false;
  std::vector<InputType> fields{};  // of a record
  InputType() = default;
  explicit InputType(const std::string& text) {
    if (text.find(':') < text.size()) {
      parse_fields(text);
      return;
    }
    const std::string name = text.substr(0, text.find('['));
    while (dtype <= 8 && name != kTypes[dtype]) ++dtype;
    if (dtype > 8) throw std::invalid_argument(text + " is no input type");
    if (name == text && dtype < kString) shape[rank++] = 0;
    for (size_t at = name.size() + 1; at < text.size() && text[at] != ']'; at = text.find_first_of(",]", at) + 1)
      shape.at(rank++) = text[at] == '*' ? 0 : uint32_t(std::stoul(text.substr(at)));
    if (rank > 1 && text.find('*') < text.size()) head_bytes = 4 * rank;
  }
  void parse_fields(const std::string& text) {  // names may be in quotes; categories and defaults are passed over
    bool is_quoted = false, has_mark = false;
    size_t depth = 0, start = 0, end = 0;  // of the type of the field that is read
    for (size_t at = 0; at <= text.size(); ++at) {
      const char c = at < text.size() ? text[at] : ',';
      if (is_quoted && c == '\\') ++at;
      else if (c == '"') is_quoted = !is_quoted;
      else if (is_quoted) continue;
      else if (c == ':' && !start) start = end = at + 1;
      if (is_quoted) continue;
      if (c == '?') has_mark = true;
      if (start && end == start && (c == '?' || c == '{' || c == '=' || (c == ',' && !depth))) end = at;
      if (c == '[' || c == '{') ++depth;
      else if (c == ']' || c == '}') --depth;
      else if (c == ',' && !depth) {
        std::string type = text.substr(start, end - start);
        type.erase(std::remove(type.begin(), type.end(), ' '), type.end());
        if (type.find('[') > type.size()) type += "[]";
        fields.emplace_back(type).is_nullable = has_mark;
        start = end = 0;
        has_mark = false;
      }
    }
  }
  bool suits(const InputType& model) const {  // whether rows of this type can be given to a model of that one
    return dtype == model.dtype && model.accepts(shape) && is_nullable <= model.is_nullable &&
        std::equal(fields.begin(), fields.end(), model.fields.begin(), model.fields.end(),
                   [](const InputType& mine, const InputType& other) { return mine.suits(other); });
  }
  bool is_like(const InputType& other) const {  // of fields; names are for the model to look up
    return dtype == other.dtype && rank == other.rank && shape == other.shape;
  }
  double size_bytes(const std::array<uint32_t, 8>& lengths) const {  // 0 if each value has a size of its own
    double size = dtype < kString ? double(kTypeBytes[dtype]) : 0;   // in which no product overflows
    for (const uint32_t length : lengths) size *= length;
    return size;
  }
  bool accepts(const std::array<uint32_t, 8>& other) const {
    return std::equal(shape.begin(), shape.end(), other.begin(), [](auto a, auto b) { return a == 0 || a == b; });
  }
  bool give_shape(Row& row) const {  // and takes off its own dimensions; false if it is not of this type
    if (row.bytes.size() < head_bytes) return false;
    row.shape = shape;
    std::memcpy(row.shape.data(), row.bytes.data(), head_bytes);
    row.bytes.remove_prefix(head_bytes);
    if (rank == 1 && shape[0] == 0) row.shape[0] = uint32_t(row.bytes.size() / kTypeBytes[dtype]);
    return dtype >= kString || (size_bytes(row.shape) == double(row.bytes.size()) && accepts(row.shape));
  }
};
struct Bytes { std::string_view bytes; };  // an output that is no text: raw in a record, and base64 in JSON
inline std::string to_base64(std::string_view bytes) {
  const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t three = 0;
    for (size_t of = at; of < at + 3; ++of) three = three << 8 | (of < bytes.size() ? uint8_t(bytes[of]) : 0);
    for (size_t digit = 0; digit < 4; ++digit)
      text += at + digit > bytes.size() ? '=' : digits[three >> (18 - 6 * digit) & 63];
  }
  return text;
}
template <class T> std::string to_json(const T& value) {  // a number, a text, bytes, or a sequence of these
  std::string json;
  if constexpr (std::is_same_v<T, bool>) {
    json = value ? "true" : "false";
  } else if constexpr (std::is_arithmetic_v<T>) {
    char digits[64];
    json.assign(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);  // the shortest that reads the same
    if (json.back() > '9') return "null";  // NaN or infinity, which JSON does not have
  } else if constexpr (std::is_same_v<T, Bytes>) {
    json = '"' + to_base64(value.bytes) + '"';
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    for (const char c : std::string_view(value)) {
      if (uint8_t(c) >= 0x20 && c != '"' && c != '\\') json += c;
      else json.append("\\u00") += {"0123456789abcdef"[c / 16], "0123456789abcdef"[c % 16]};
    }
    json = '"' + json + '"';
  } else {
    for (const auto& element : value) json += (json.empty() ? "" : ",") + to_json(element);
    json = '[' + json + ']';
  }
  return json;
}
template <class... T> std::string pack(const T&... values) {  // little-endian, as this machine has to be
  return (std::string(reinterpret_cast<const char*>(&values), sizeof values) + ...);
}
template <class T> T get(std::string_view bytes, size_t at) { return Row{bytes.substr(at)}.at<T>(0); }
inline void require(bool holds, const char* what) { if (!holds) throw std::runtime_error(what); }
struct Header { uint32_t body_bytes; Kind kind; uint64_t id; };  // of kind's bytes the upper three are 0
inline Header read_header(std::string_view bytes, size_t max_body) {
  const auto header = get<Header>(bytes, 0);
  const bool is_known = header.kind >= HELLO && header.kind <= COLUMN_RESULTS;
  require(is_known && header.body_bytes <= max_body, "a frame is malformed");
  return header;
}
inline std::string frame(Kind kind, uint64_t id, std::string_view body) {
  return pack(Header{uint32_t(body.size()), kind, id}).append(body);
}
inline std::string_view read_hello(std::string_view body) {  // returns the token
  require(body.size() >= 8 && body.substr(0, 4) == "CLPR", "expected HELLO");
  require(get<uint16_t>(body, 4) >= 1, "expected HELLO of version 1 or later");
  require(get<uint16_t>(body, 6) == body.size() - 8, "HELLO's token is not of the size that it says");
  return body.substr(8);
}
struct Span { std::string_view traceparent, tracestate; };  // named as in the headers of W3C Trace Context
using Trace = std::vector<Span>;  // the batch's span, and those of its traced queries; empty if it is not traced
inline Trace current_trace;       // of the batch that the model evaluates now
inline Trace take_trace(std::string_view& body, uint16_t version, Kind kind = PREDICT) {  // off the end of a body
  const size_t size = body.size() < 16 ? 0 : get<uint32_t>(body, kind == PREDICT ? 12 : 8);
  require(!size || (version >= 3 && size <= std::min(body.size() - 16, kMaxTrace)), "PREDICT's trace is malformed");
  const std::string_view text = body.substr(body.size() - size);
  body.remove_suffix(size);
  Trace trace;
  for (size_t at = 0; size && at <= size;) {
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    const size_t blank = std::min(line.find(' '), line.size());
    trace.push_back({line.substr(0, blank), line.substr(std::min(blank + 1, line.size()))});
    at += line.size() + 1;
  }
  return trace;
}
inline Rows read_predict(std::string_view body, const InputType& type) {  // within the body; none if of another type
  require(body.size() >= 16 && !get<uint16_t>(body, 10), "PREDICT's head is malformed");
  const size_t count = get<uint32_t>(body, 0), row_bytes = get<uint32_t>(body, 4);
  size_t start = row_bytes ? 16 : 16 + (count * 4 + 7) / 8 * 8;
  require(count >= 1 && count <= kMaxRows && start <= body.size(), "PREDICT has no rows, or too many");
  bool suits = get<uint8_t>(body, 8) == type.dtype && 4u * get<uint8_t>(body, 9) == type.head_bytes;
  Rows rows;
  for (size_t row = 0; row < count; ++row) {
    const size_t size = row_bytes ? row_bytes : get<uint32_t>(body, 16 + row * 4);
    require(size <= body.size() - start, "PREDICT ends inside its rows");
    rows.push_back({body.substr(start, size)});
    suits = suits && type.give_shape(rows.back());
    start += size;
  }
  require(start == body.size(), "PREDICT goes on after its rows");
  return suits && type.fields.empty() ? rows : Rows{};
}
inline size_t padded(size_t size) { return (size + 7) / 8 * 8; }
inline std::string_view take(std::string_view& body, size_t size) {
  require(size <= body.size(), "a frame ends inside a column");
  const std::string_view taken = body.substr(0, size);
  body.remove_prefix(size);
  return taken;
}
inline bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const auto lead = uint8_t(text[at++]);
    int more = lead < 0x80 ? 0 : lead >= 0xC2 && lead < 0xE0 ? 1 : lead >= 0xE0 && lead < 0xF0 ? 2 : 3;
    if (lead >= 0x80 && (lead < 0xC2 || lead > 0xF4)) return false;
    for (; more > 0; --more) if (at == text.size() || (uint8_t(text[at++]) & 0xC0) != 0x80) return false;
  }
  return true;
}
inline std::pair<InputType, std::string_view> read_column_head(std::string_view& body, bool& has_present) {
  const std::string_view head = take(body, 8);
  const size_t dtype = get<uint8_t>(head, 0), rank = get<uint8_t>(head, 1), name_bytes = get<uint16_t>(head, 4);
  has_present = get<uint8_t>(head, 2) == 1;
  require(dtype >= 1 && dtype <= kBytes && rank <= 8 && get<uint8_t>(head, 2) <= 1 && get<uint8_t>(head, 3) == dtype &&
          name_bytes && !get<uint16_t>(head, 6), "a column's head is malformed");
  const std::string_view named = take(body, padded(4 * rank + name_bytes));
  InputType type;
  type.dtype = dtype;
  type.rank = rank;
  std::memcpy(type.shape.data(), named.data(), 4 * rank);
  if (rank > 1 && std::count(type.shape.begin(), type.shape.end(), 0)) type.head_bytes = 4 * rank;
  require(is_utf8(named.substr(4 * rank, name_bytes)), "a column's name is not UTF-8");
  return {type, named.substr(4 * rank, name_bytes)};
}
inline Rows read_columns(std::string_view body, const InputType& type) {  // within the body; none if of another type
  require(body.size() >= 16 && !get<uint16_t>(body, 6) && !get<uint32_t>(body, 12), "PREDICT_COLUMNS is malformed");
  const size_t count = get<uint32_t>(body, 0), columns = get<uint16_t>(body, 4);
  require(count >= 1 && count <= kMaxRows && columns >= 1 && columns <= kMaxColumns, "no rows or columns, or too many");
  body.remove_prefix(16);
  Rows rows;
  rows.resize(count);
  bool suits = columns == type.fields.size(), has_present = false;
  for (size_t index = 0; index < columns; ++index) {
    const auto [own, name] = read_column_head(body, has_present);
    for (const auto& [other, values] : rows.columns) require(other != name, "two columns have one name");
    suits = suits && own.is_like(type.fields[index]);
    const std::string_view present = has_present ? take(body, padded((count + 7) / 8)) : "";
    const double each = own.size_bytes(own.shape);
    const std::string_view lengths = each > 0 ? "" : take(body, padded(4 * count));
    double total = each * double(count);
    for (size_t row = 0; row < count && each == 0; ++row) total += get<uint32_t>(lengths, 4 * row);
    require(total <= double(body.size()), "a column's values are larger than the frame");
    std::string_view data = take(body, padded(size_t(total)));
    Values values;
    for (size_t row = 0; row < count; ++row) {
      values.push_back({take(data, each > 0 ? size_t(each) : get<uint32_t>(lengths, 4 * row))});
      values.back().is_missing = has_present && !(uint8_t(present[row / 8]) >> row % 8 & 1);
      suits = suits && (values.back().is_missing || own.give_shape(values.back()));
    }
    rows.columns.emplace_back(name, std::move(values));
  }
  require(body.empty(), "PREDICT_COLUMNS goes on after its columns");
  return suits ? rows : Rows{};
}
// A text of JSON, a number or an array of them, a record, or nothing, since it failed. In a record also text or bytes.
struct Output {
  uint8_t dtype = 0;            // 0: JSON
  std::vector<uint32_t> shape;  // of an array
  std::string bytes;
  std::vector<std::pair<std::string, Output>> fields{};  // of a record
  bool is_missing = false;                               // a field of it
  bool has_failed() const { return !dtype && bytes.empty() && fields.empty(); }
  bool is_like(const Output& other) const { return dtype && dtype == other.dtype && shape == other.shape; }
  bool is_finite() const {
    bool is_so = true;
    for (size_t at = 0; dtype == 3 && at < bytes.size(); at += 4) is_so = is_so && std::isfinite(get<float>(bytes, at));
    for (size_t at = 0; dtype == 4 && at < bytes.size(); at += 8)
      is_so = is_so && std::isfinite(get<double>(bytes, at));
    return is_so;
  }
  std::string type() const {  // e.g. float32[10]; 0 is any length
    std::string lengths;
    for (const uint32_t length : shape) lengths += (lengths.empty() ? "" : ",") + (length ? to_json(length) : "*");
    return kTypes[dtype] + (dtype < kString ? "[" + lengths + "]" : "");
  }
  std::string json() const {
    if (is_missing) return "null";
    if (dtype >= kString) return dtype == kString ? to_json(bytes) : to_json(Bytes{bytes});
    std::string text = dtype ? "" : bytes;
    for (const auto& [name, value] : fields) text += (text.empty() ? "{" : ",") + to_json(name) + ":" + value.json();
    if (!fields.empty()) text += '}';
    for (size_t at = 0, size = kTypeBytes[dtype]; dtype && at < bytes.size() / size; ++at) {
      std::string open, close;  // the lists that begin and end with this element
      for (size_t axis = shape.size(), span = 1; axis-- > 0;) {
        span *= shape[axis];
        if (at % span == 0) open += '[';
        if ((at + 1) % span == 0) close += ']';
      }
      text += (at ? "," : "") + open + element(at * size) + close;
    }
    return text;
  }
  std::string element(size_t at) const {
    switch (dtype) {
      case 1: return to_json(get<int32_t>(bytes, at));
      case 2: return to_json(get<int64_t>(bytes, at));
      case 3: return to_json(get<float>(bytes, at));
      case 4: return to_json(get<double>(bytes, at));
      case 5: return to_json(get<uint8_t>(bytes, at));
      default: return to_json(get<bool>(bytes, at));
    }
  }
  template <class T> bool append(const T& value, size_t axis = 0) {  // false if this makes it no array of one shape
    if constexpr (std::is_floating_point_v<T> && sizeof(T) <= 8) {
      return append_as<T>(sizeof(T) == 4 ? 3 : 4, value);
    } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, uint8_t>) {
      return append_as<T>(std::is_same_v<T, bool> ? 6 : 5, value);
    } else if constexpr (std::is_integral_v<T> && sizeof(T) + std::is_unsigned_v<T> <= 4) {
      return append_as<int32_t>(1, value);
    } else if constexpr (std::is_integral_v<T> && sizeof(T) + std::is_unsigned_v<T> <= 8) {
      return append_as<int64_t>(2, value);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_convertible_v<const T&, std::string_view> ||
                         std::is_same_v<T, Bytes>) {
      return false;
    } else {
      const auto length = uint32_t(std::distance(std::begin(value), std::end(value)));
      if (axis == shape.size() && bytes.empty()) shape.push_back(length);
      if (!length || axis >= std::min<size_t>(shape.size(), 8) || shape[axis] != length) return false;
      for (const auto& part : value) if (!append(part, axis + 1)) return false;
      return true;
    }
  }
  template <class Stored, class T> bool append_as(uint8_t as, T value) {
    bytes += pack(Stored(value));
    dtype = as;
    return true;
  }
};
template <class T> struct IsOptional : std::false_type {};
template <class T> struct IsOptional<std::optional<T>> : std::true_type {};
template <class T> Output field_of(const T& value) {  // a number, a text, bytes, an array; an optional may be missing
  if constexpr (IsOptional<T>::value) {
    Output missing;
    missing.is_missing = true;
    return value ? field_of(*value) : missing;
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return {uint8_t(kString), {}, std::string(std::string_view(value))};
  } else if constexpr (std::is_same_v<T, Bytes>) {
    return {uint8_t(kBytes), {}, std::string(value.bytes)};
  } else {
    Output output;
    return output.append(value) ? output : Output{0, {}, to_json(value)};
  }
}
struct Outputs {  // of a batch: one add or fail an input, in the inputs' order
  std::vector<Output> outputs;
  std::string failures;  // as RESULTS has them
  uint32_t failed = 0, count = 0;
  template <class T> void add(const T& value) {  // a number, a text, bytes, or a sequence of these
    Output output;
    if (output.append(value)) return keep(std::move(output));
    add_json(to_json(value));
  }
  // One output with several names: add_record("label", label, "scores", scores).
  template <class... T> void add_record(const T&... names_and_values) {
    Output record;
    add_fields(record, names_and_values...);
    keep(std::move(record));
  }
  static void add_fields(Output&) {}
  template <class T, class... Rest>
  static void add_fields(Output& record, const std::string& name, const T& value, const Rest&... rest) {
    record.fields.emplace_back(name, field_of(value));
    add_fields(record, rest...);
  }
  void add_json(std::string json) {
    std::replace(json.begin(), json.end(), '\n', ' ');  // white space in JSON, but the end of an output here
    keep({0, {}, std::move(json)});
  }
  void fail(const std::string& why) {
    failures += pack(count, uint32_t(std::min(why.size(), kMaxMessage))) + why.substr(0, kMaxMessage);
    ++failed;
    keep({});
  }
  const Output* form() const {  // what all are like that have not failed, if they are arrays
    const Output* first = nullptr;
    for (const Output& output : outputs) {
      if (output.has_failed()) continue;
      first = first ? first : &output;
      if (!first->is_like(output)) return nullptr;
    }
    return first;
  }
  bool are_finite() const {
    return std::all_of(outputs.begin(), outputs.end(), [](const Output& output) { return output.is_finite(); });
  }
  void keep(Output output) {
    outputs.push_back(std::move(output));
    ++count;
  }
};
struct Column {  // of COLUMN_RESULTS
  std::string name;
  uint8_t dtype = 0, written_as = 0;  // written as 0: texts of JSON
  std::vector<uint32_t> shape{};  // 0: any length
  std::string present{};          // a bit for each row; empty if all have a value
  std::vector<uint32_t> lengths{};
  std::string data{};
};
inline void add_value(Column& column, const Output* value, bool is_open) {  // null: the row has none of this type
  const size_t before = column.data.size();
  for (size_t axis = 0; is_open && value && column.shape.size() > 1 && axis < column.shape.size(); ++axis)
    column.data += pack(value->shape[axis]);
  if (value) column.data += value->dtype ? value->bytes : value->json();
  if (is_open) return column.lengths.push_back(uint32_t(column.data.size() - before));
  size_t size = value ? 0 : kTypeBytes[column.dtype];
  for (const uint32_t length : column.shape) size *= length;
  column.data.append(size, '\0');
}
// A column for each type that the values of a name have; null: a row that failed. Appends none if there may be but one.
inline void add_columns(std::vector<Column>& columns, const std::string& name, const std::vector<const Output*>& values,
                        bool is_mixed) {
  std::vector<Column> own;
  const auto has = [](const Column& column, const Output* value) {
    const bool is_there = value && !value->is_missing;
    return is_there && value->dtype == column.written_as && value->shape.size() == column.shape.size();
  };
  bool is_any_missing = false;
  for (const Output* value : values) {
    is_any_missing = is_any_missing || (value && value->is_missing);
    if (!value || value->is_missing) continue;
    const auto like = std::find_if(own.begin(), own.end(), [&](const Column& column) { return has(column, value); });
    if (like == own.end()) {
      own.push_back({name, value->dtype ? value->dtype : uint8_t(kString), value->dtype, value->shape});
      continue;
    }
    for (size_t axis = 0; axis < like->shape.size(); ++axis)
      if (like->shape[axis] != value->shape[axis]) like->shape[axis] = 0;
  }
  if (!is_mixed && (own.size() != 1 || !own[0].written_as)) return;
  if (own.empty()) own.push_back({name, kString});  // all are missing
  for (Column& column : own) {
    if (own.size() > 1) std::fill(column.shape.begin(), column.shape.end(), 0);  // an absent value takes no place
    const bool is_open = column.dtype >= kString || std::count(column.shape.begin(), column.shape.end(), 0);
    std::string present((values.size() + 7) / 8, '\0');
    for (size_t row = 0; row < values.size(); ++row) {
      const bool is_there = has(column, values[row]);
      add_value(column, is_there ? values[row] : nullptr, is_open);
      present[row / 8] = char(present[row / 8] | (is_there || !values[row]) << row % 8);
    }
    if (is_any_missing || own.size() > 1) column.present = std::move(present);
    columns.push_back(std::move(column));
  }
}
// Of records of the same fields; if mixed, also of arrays that differ, without a name. None of other outputs.
inline std::vector<Column> columns_of(const Outputs& outputs, bool is_mixed) {
  const Output* first = nullptr;
  std::vector<const Output*> values;
  bool are_records = true, has_array = false;
  for (const Output& output : outputs.outputs) {
    values.push_back(output.has_failed() ? nullptr : &output);
    if (output.has_failed()) continue;
    first = first ? first : &output;
    has_array = has_array || (output.dtype && !output.shape.empty()) || !output.is_finite();
    are_records = are_records && !output.fields.empty() && std::equal(
        output.fields.begin(), output.fields.end(), first->fields.begin(), first->fields.end(),
        [](const auto& mine, const auto& other) { return mine.first == other.first; });
  }
  std::vector<Column> columns;
  if (!are_records && has_array && is_mixed) add_columns(columns, "", values, is_mixed);
  for (size_t index = 0; first && are_records && index < first->fields.size(); ++index) {
    const std::string& name = first->fields[index].first;
    const size_t before = columns.size();
    for (size_t row = 0; row < values.size(); ++row)
      if (values[row]) values[row] = &outputs.outputs[row].fields[index].second;
    if (!name.empty() && name.size() <= kMaxName) add_columns(columns, name, values, is_mixed);
    if (columns.size() == before || columns.size() > kMaxColumns) return {};
  }
  return columns;
}
inline std::string type_of(const std::vector<Column>& columns) {  // e.g. "label": string, "scores": float32[10]
  std::string type, last;
  for (const Column& column : columns) {
    if (!column.written_as || (!type.empty() && column.name == last)) return "";  // several types, or none
    last = column.name;
    type += (type.empty() ? "" : ", ") + (last.empty() ? "" : to_json(last) + ": ") +
        Output{column.dtype, column.shape, ""}.type() + (column.present.empty() ? "" : "?");
  }
  return type;
}
struct Model {
  std::string input_type;                              // a deployment may declare a narrower one
  std::function<void(const Rows&, Outputs&)> predict;  // called for one batch at a time, by various threads
  uint32_t max_batch = 0;                              // 0: no bound of its own
  std::string output_type{};                           // e.g. float32[10]; empty: as the first arrays show
  bool has_learned = false;                            // the output type, from these
};
inline std::string welcome(const Model& model, const Options& options, uint16_t version = 1) {
  const bool is_record = model.output_type.find(':') < model.output_type.size();
  const bool is_known = !model.output_type.empty() && (version >= 4 || !is_record);
  return frame(WELCOME, 0, "{\"protocol\":" + to_json(version) + ",\"model\":" + to_json(options.at("--model")) +
      ",\"version\":" + to_json(options.at("--version")) + ",\"input_type\":" + to_json(model.input_type) +
      ",\"max_batch\":" + (model.max_batch ? to_json(model.max_batch) : "null") + ",\"output_type\":" +
      (is_known ? to_json(model.output_type) : "null") + ",\"output_is_declared\":" +
      to_json(is_known && !model.has_learned) + ",\"runtime\":\"c++\"}");
}
inline std::string column_results(uint64_t id, const Outputs& outputs, const std::vector<Column>& columns,
                                  int64_t evaluation_us) {
  std::string body = pack(outputs.count, outputs.failed, evaluation_us, uint16_t(columns.size()), uint16_t(0), 0);
  for (const Column& column : columns) {
    body += pack(column.dtype, uint8_t(column.shape.size()), uint8_t(!column.present.empty()), column.written_as,
                 uint16_t(column.name.size()), uint16_t(0));
    for (const uint32_t length : column.shape) body += pack(length);
    body.append(column.name).resize(padded(body.size()));
    body.append(column.present).resize(padded(body.size()));
    for (const uint32_t length : column.lengths) body += pack(length);
    body.resize(padded(body.size()));
    body.append(column.data).resize(padded(body.size()));
  }
  return frame(COLUMN_RESULTS, id, body + outputs.failures);
}
inline std::string typed_results(uint64_t id, const Outputs& outputs, const Output& form, int64_t evaluation_us) {
  std::string body = pack(outputs.count, outputs.failed, evaluation_us, form.dtype, form.dtype,
                          uint8_t(form.shape.size()), uint8_t(0), uint32_t(0));
  for (const uint32_t length : form.shape) body += pack(length);
  body.resize(padded(body.size()));
  for (const Output& output : outputs.outputs)
    body.append(output.bytes).append(output.dtype ? 0 : form.bytes.size(), '\0');
  return frame(TYPED_RESULTS, id, body + outputs.failures);
}
inline std::string results(uint64_t id, const Outputs& outputs, int64_t evaluation_us, uint16_t version = 1) {
  const Output* form = version >= 2 ? outputs.form() : nullptr;
  // The text of a number is as fast, but there is none for NaN and infinity.
  if (form && (!form->shape.empty() || !outputs.are_finite())) return typed_results(id, outputs, *form, evaluation_us);
  const std::vector<Column> columns = version >= 4 ? columns_of(outputs, version >= 5) : std::vector<Column>{};
  if (!columns.empty()) return column_results(id, outputs, columns, evaluation_us);
  std::string body = pack(outputs.count, outputs.failed, evaluation_us) + outputs.failures;
  for (size_t row = 0; row < outputs.count; ++row) body += (row ? "\n" : "") + outputs.outputs[row].json();
  return frame(RESULTS, id, body);
}
inline int64_t now_us() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::microseconds(1); }
// `shown` becomes the type of outputs that are arrays or records. Out of memory, the process ends.
inline std::string answer(const Model& model, uint64_t id, const Rows& rows, uint16_t version,
                          std::string& shown) noexcept {
  if (rows.empty()) return frame(ERROR, id, "rows are not of the model's input type, " + model.input_type);
  const int64_t started_us = now_us();
  Outputs outputs;
  try {
    model.predict(rows, outputs);
  } catch (const std::exception& error) {  // the caller finds out over which input, and asks again for the others
    return frame(ERROR, id, std::string("the model threw: ") + error.what());
  } catch (...) {
    return frame(ERROR, id, "the model threw what is no std::exception");
  }
  if (outputs.count != rows.size()) return frame(ERROR, id, "the model gave more or fewer outputs than inputs");
  const Output* form = outputs.form();
  shown = form ? form->type() : type_of(columns_of(outputs, true));
  return results(id, outputs, now_us() - started_us, version);
}
template <class T> void set(int fd, int level, int name, T value) { setsockopt(fd, level, name, &value, sizeof value); }
inline std::string_view receive(int fd, char* to, size_t size) {
  require(!size || recv(fd, to, size, MSG_WAITALL) == ssize_t(size), "the caller has gone, or paused for too long");
  return {to, size};
}
inline void send_all(int fd, std::string_view bytes) {  // or ends the connection: nothing can follow half a frame
  if (send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) < ssize_t(bytes.size())) shutdown(fd, SHUT_RDWR);
}
inline int listen_on(const std::string& address) {
  const bool is_unix = address[0] == 'u';
  const std::string path = is_unix ? address.substr(5) : "", port = address.substr(address.rfind(':') + 1);
  std::string host = address.substr(4, address.rfind(':') - 4);
  if (host[0] == '[') host = host.substr(1, host.size() - 2);  // IPv6
  sockaddr_un name{AF_UNIX, {}};
  require(path.size() < sizeof name.sun_path, "its path has over 107 bytes");
  path.copy(name.sun_path, path.size());
  addrinfo place{0, AF_UNIX, SOCK_STREAM, 0, sizeof name, reinterpret_cast<sockaddr*>(&name), nullptr, nullptr};
  addrinfo* at = &place;
  require(is_unix || getaddrinfo(host.c_str(), port.c_str(), nullptr, &at) == 0, "the host is not known");
  const int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool is_dead = std::filesystem::is_socket(path) && connect(fd, at->ai_addr, at->ai_addrlen) < 0;
  if (is_dead && errno == ECONNREFUSED) unlink(path.c_str());  // all else is left for bind to refuse
  set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  const bool is_bound = bind(fd, at->ai_addr, at->ai_addrlen) == 0;  // nobody can connect yet, and nobody else may
  if (is_bound && is_unix) std::filesystem::permissions(path, std::filesystem::perms(0600));
  if (!is_bound || listen(fd, 128) < 0) throw std::system_error(errno, std::generic_category());
  return fd;
}
inline std::atomic<bool> stopping{false};
inline int listener = -1;  // which the handler of SIGTERM shuts down

struct Server {  // each connection has a thread of its own, which calls the model when it is its turn
  Model model;
  const Options options;
  const std::string token;
  const InputType type{model.input_type};
  std::atomic<int> connections{0}, in_hand{0};  // in hand: the batch that runs, and answers unsent
  std::atomic<int64_t> running_since_us{INT64_MAX};
  std::mutex mutex{};
  std::condition_variable next_turn{};  // batches run one at a time, in the order in which they came
  uint64_t tickets = 0, turn = 0;
  [[noreturn]] void run(const std::string& address) {  // until SIGTERM; then what is in hand has a while to be answered
    listener = listen_on(address);
    std::signal(SIGTERM, [](int) { stopping = true; shutdown(listener, SHUT_RDWR); });
    std::cerr << "clipper: listening on " << address << std::endl;
    for (int fd = 0; !stopping; usleep(fd < 0 ? 10'000 : 0)) try {
        fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd >= 0) std::thread(&Server::serve, this, fd).detach();
      } catch (const std::system_error&) { close(fd); }  // no thread to be had
    for (int waits = 0; in_hand && waits < 100 * kPatienceS; ++waits) usleep(10'000);
    if (address[0] == 'u') unlink(address.c_str() + 5);
    std::fflush(nullptr);
    std::_Exit(0);  // threads still use the server
  }
  void serve(int fd) {
    bool watches = false;
    size_t frames = 0;
    uint16_t version = 1;
    try {
      require(++connections <= kMaxConnections, "too many connections");
      set(fd, IPPROTO_TCP, TCP_NODELAY, 1);  // a unix socket refuses, and needs none
      set(fd, SOL_SOCKET, SO_RCVTIMEO, timeval{kPatienceS, 0});
      for (char head[sizeof(Header)];; ++frames) {
        const auto [size, kind, id] = read_header(receive(fd, head, sizeof head), frames ? kMaxBody : kMaxHello);
        const std::unique_ptr<char[]> memory(new char[size]);  // which the system gives as it is written to
        std::string_view body = receive(fd, memory.get(), size);
        const int64_t busy_us = std::max<int64_t>(now_us() - running_since_us, 0);
        if (frames == 1) watches = kind == PING;
        if (frames == 0) version = greet(fd, kind, body);
        else if (kind == PING && body.empty()) send_all(fd, frame(PONG, id, pack(busy_us)));
        else if ((kind == PREDICT || kind == PREDICT_COLUMNS) && watches)
          send_all(fd, frame(ERROR, id, "this connection only watches"));
        else if (kind == PREDICT || (kind == PREDICT_COLUMNS && version >= 4)) {
          Trace trace = take_trace(body, version, kind);
          predict(fd, id, kind == PREDICT ? read_predict(body, type) : read_columns(body, type), std::move(trace),
                  version);
        } else require(false, "expected PREDICT or PING");
      }
    } catch (const std::exception& error) {
      if (frames == 0) send_all(fd, frame(ERROR, 0, error.what()));
    }
    close(fd);
    --connections;
  }
  uint16_t greet(int fd, Kind kind, std::string_view body) {  // returns the version that is spoken
    const std::string_view given = read_hello(body);
    size_t difference = given.size() ^ token.size();
    for (size_t at = 0; at < std::min(given.size(), token.size()); ++at) difference |= size_t(given[at] ^ token[at]);
    require(kind == HELLO && (token.empty() || !difference), "expected HELLO with the token of this container");
    set(fd, SOL_SOCKET, SO_RCVTIMEO, timeval{});
    const auto version = std::min(get<uint16_t>(body, 4), kVersion);
    require(version >= 4 || type.fields.empty(), "records need version 4 of the protocol");
    std::unique_lock lock(mutex);
    const std::string greeting = welcome(model, options, version);
    lock.unlock();
    send_all(fd, greeting);
    return version;
  }
  void predict(int fd, uint64_t id, const Rows& rows, Trace trace, uint16_t version) {
    std::string shown;
    std::unique_lock lock(mutex);
    next_turn.wait(lock, [this, mine = tickets++] { return mine == turn; });
    require(!stopping, "the container stops");  // and no other turn comes
    ++in_hand;
    lock.unlock();
    current_trace = std::move(trace);
    running_since_us = now_us();
    const std::string reply = answer(model, id, rows, version, shown);
    running_since_us = INT64_MAX;
    current_trace.clear();
    lock.lock();
    if (model.output_type.empty()) {
      model.output_type = shown;
      model.has_learned = true;
    }
    ++turn;
    lock.unlock();
    next_turn.notify_all();
    send_all(fd, reply);
    --in_hand;
  }
};
inline Options parse_options(int argc, char** argv) {
  Options options{{"--listen", ""}, {"--model", ""}, {"--version", ""}, {"--data", ""}, {"--input-type", ""}};
  for (int at = 1; at + 1 < argc; at += 2) options[argv[at]] = argv[at + 1];
  const std::string& address = options["--listen"];
  const bool is_unix = address.rfind("unix:", 0) == 0 && address.size() > 5;
  const bool is_tcp = address.rfind("tcp:", 0) == 0 && address.rfind(':') > 4;
  require(argc % 2 && options.size() == 5 && (is_unix || is_tcp),
          "expected --listen unix:PATH|tcp:HOST:PORT --model NAME --version V [--data PATH] [--input-type TYPE]");
  return options;
}
inline Model declared(Model model, const std::string& input_type) {  // as the deployment narrows it, if it does
  const InputType taken(model.input_type), type(input_type.empty() ? model.input_type : input_type);
  if (!input_type.empty()) model.input_type = input_type;
  require(type.suits(taken), "the declared input type does not suit it");
  return model;
}

// Serves the model that `load` returns, or throws for, until SIGTERM. Returns main's exit code.
inline int serve(int argc, char** argv, const std::function<Model(const Options&)>& load) {
  std::pair<int, const char*> stage{2, "wrong usage: "};
  try {
    const Options options = parse_options(argc, argv);
    const std::string address = options.at("--listen");
    const std::string token = std::getenv("CLIPPER_TOKEN") ? std::getenv("CLIPPER_TOKEN") : "";
    require(address[0] == 'u' || !token.empty(), "a container on tcp needs a token: set CLIPPER_TOKEN");
    unsetenv("CLIPPER_TOKEN");  // not for the model to read, nor for processes that it starts
    stage = {3, "the model cannot be loaded: "};
    const Model model = declared(load(options), options.at("--input-type"));
    stage = {4, "cannot listen: "};
    Server{model, options, token}.run(address);
  } catch (const std::exception& error) {
    std::cerr << "clipper: " << stage.second << error.what() << std::endl;
    return stage.first;
  }
}
}  // namespace clipper
