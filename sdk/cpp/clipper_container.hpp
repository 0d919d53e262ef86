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
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>
namespace clipper {
enum Kind : uint32_t { HELLO = 1, WELCOME, PREDICT, RESULTS, ERROR, PING, PONG, TYPED_RESULTS };
constexpr const char* kTypes[] = {"", "int32", "int64", "float32", "float64", "uint8", "bool", "string", "bytes"};
constexpr size_t kTypeBytes[] = {0, 4, 8, 4, 8, 1, 1, 1, 1}, kString = 7;
constexpr uint16_t kVersion = 3;  // of the protocol; callers of version 1 get no TYPED_RESULTS
constexpr size_t kMaxHello = 8 + 0xFFFF, kMaxBody = 1 << 30, kMaxRows = 65'536, kMaxMessage = 4'096;
constexpr size_t kMaxTrace = 128 * 1'024;
constexpr int kMaxConnections = 256, kPatienceS = 5;  // for a HELLO, and at the end for the last answer to be taken
using Options = std::map<std::string, std::string>;   // what a container is started with, e.g. options.at("--data")
struct Row {  // one input; valid during the call that it is given to
  std::string_view bytes;  // its elements in C order, or a text
  std::array<uint32_t, 8> shape{};  // 1 beyond the last dimension
  template <class T> size_t count() const { return bytes.size() / sizeof(T); }
  template <class T> T at(size_t index) const {  // compiles to a load, but may read where no T is aligned
    T value;
    std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
    return value;
  }
};
using Rows = std::vector<Row>;
struct InputType {  // e.g. float64[784], float32[3,*,*] or string; a bare numeric type is a list of any length
  size_t dtype = 1, rank = 0, head_bytes = 0;  // of a row's own dimensions, which stand before its data
  std::array<uint32_t, 8> shape{1, 1, 1, 1, 1, 1, 1, 1};  // 0: any length
  explicit InputType(const std::string& text) {
    const std::string name = text.substr(0, text.find('['));
    while (dtype <= 8 && name != kTypes[dtype]) ++dtype;
    if (dtype > 8) throw std::invalid_argument(text + " is no input type");
    if (name == text && dtype < kString) shape[rank++] = 0;
    for (size_t at = name.size() + 1; at < text.size() && text[at] != ']'; at = text.find_first_of(",]", at) + 1)
      shape.at(rank++) = text[at] == '*' ? 0 : uint32_t(std::stoul(text.substr(at)));
    if (rank > 1 && text.find('*') < text.size()) head_bytes = 4 * rank;
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
    auto size = double(kTypeBytes[dtype]);  // in which no product overflows
    for (const uint32_t length : row.shape) size *= length;
    return dtype >= kString || (size == double(row.bytes.size()) && accepts(row.shape));
  }
};
template <class T> std::string to_json(const T& value) {  // a number, a text, or a sequence of these
  std::string json;
  if constexpr (std::is_same_v<T, bool>) {
    json = value ? "true" : "false";
  } else if constexpr (std::is_arithmetic_v<T>) {
    char digits[64];
    json.assign(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);  // the shortest that reads the same
    if (json.back() > '9') throw std::domain_error("output is NaN or infinity, which JSON cannot carry");
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
  const bool is_known = header.kind >= HELLO && header.kind <= TYPED_RESULTS;
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
inline Trace take_trace(std::string_view& body, uint16_t version) {  // off the end of a PREDICT's body
  const size_t size = body.size() < 16 ? 0 : get<uint32_t>(body, 12);
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
  return suits ? rows : Rows{};
}
struct Output {  // a text of JSON, an array of numbers, or nothing, since it failed
  uint8_t dtype = 0;            // 0: no array
  std::vector<uint32_t> shape;  // of an array
  std::string bytes;
  bool is_like(const Output& other) const { return dtype && dtype == other.dtype && shape == other.shape; }
  std::string type() const {  // e.g. float32[10]
    std::string lengths;
    for (const uint32_t length : shape) lengths += (lengths.empty() ? "" : ",") + to_json(length);
    return kTypes[dtype] + ("[" + lengths + "]");
  }
  std::string json() const {
    std::string text = dtype ? "" : bytes;
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
      if (!std::isfinite(value)) throw std::domain_error("output contains NaN or infinity, which JSON cannot carry");
      return append_as<T>(sizeof(T) == 4 ? 3 : 4, value);
    } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, uint8_t>) {
      return append_as<T>(std::is_same_v<T, bool> ? 6 : 5, value);
    } else if constexpr (std::is_integral_v<T> && sizeof(T) + std::is_unsigned_v<T> <= 4) {
      return append_as<int32_t>(1, value);
    } else if constexpr (std::is_integral_v<T> && sizeof(T) + std::is_unsigned_v<T> <= 8) {
      return append_as<int64_t>(2, value);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_convertible_v<const T&, std::string_view>) {
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
struct Outputs {  // of a batch: one add or fail an input, in the inputs' order
  std::vector<Output> outputs;
  std::string failures;  // as RESULTS has them
  uint32_t failed = 0, count = 0;
  template <class T> void add(const T& value) {  // a number, a text, or a sequence of these
    try {
      Output output;
      if constexpr (!std::is_arithmetic_v<T>)  // the text of a number is as fast
        if (output.append(value)) return keep(std::move(output));
      add_json(to_json(value));
    } catch (const std::domain_error& error) { fail(error.what()); }
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
      if (!output.dtype && output.bytes.empty()) continue;
      first = first ? first : &output;
      if (!first->is_like(output)) return nullptr;
    }
    return first;
  }
  void keep(Output output) {
    outputs.push_back(std::move(output));
    ++count;
  }
};
struct Model {
  std::string input_type;                              // a deployment may declare a narrower one
  std::function<void(const Rows&, Outputs&)> predict;  // called for one batch at a time, by various threads
  uint32_t max_batch = 0;                              // 0: no bound of its own
  std::string output_type{};                           // e.g. float32[10]; empty: as the first arrays show
};
inline std::string welcome(const Model& model, const Options& options, uint16_t version = 1) {
  return frame(WELCOME, 0, "{\"protocol\":" + to_json(version) + ",\"model\":" + to_json(options.at("--model")) +
      ",\"version\":" + to_json(options.at("--version")) + ",\"input_type\":" + to_json(model.input_type) +
      ",\"max_batch\":" + (model.max_batch ? to_json(model.max_batch) : "null") + ",\"output_type\":" +
      (model.output_type.empty() ? "null" : to_json(model.output_type)) + ",\"runtime\":\"c++\"}");
}
inline std::string results(uint64_t id, const Outputs& outputs, int64_t evaluation_us, uint16_t version = 1) {
  std::string body = pack(outputs.count, outputs.failed, evaluation_us);
  const Output* form = version >= 2 ? outputs.form() : nullptr;
  if (!form) {
    body += outputs.failures;
    for (size_t row = 0; row < outputs.count; ++row) body += (row ? "\n" : "") + outputs.outputs[row].json();
    return frame(RESULTS, id, body);
  }
  body += pack(form->dtype, form->dtype, uint8_t(form->shape.size()), uint8_t(0), uint32_t(0));
  for (const uint32_t length : form->shape) body += pack(length);
  body.resize((body.size() + 7) / 8 * 8);
  for (const Output& output : outputs.outputs)
    body.append(output.bytes).append(output.dtype ? 0 : form->bytes.size(), '\0');
  return frame(TYPED_RESULTS, id, body + outputs.failures);
}
inline int64_t now_us() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::microseconds(1); }
// `shown` becomes the type of outputs that are arrays. Out of memory, the process ends.
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
  if (const Output* form = outputs.form()) shown = form->type();
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
        else if (kind == PREDICT && watches) send_all(fd, frame(ERROR, id, "this connection only watches"));
        else if (kind == PREDICT) {
          Trace trace = take_trace(body, version);
          predict(fd, id, read_predict(body, type), std::move(trace), version);
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
    if (model.output_type.empty()) model.output_type = shown;
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
  require(type.dtype == taken.dtype && taken.accepts(type.shape), "the declared input type does not suit it");
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
