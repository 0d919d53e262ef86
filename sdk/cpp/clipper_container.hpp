// Serves a model to Clipper: C++17, no dependency; Linux, GCC 11 or Clang 14 or later. This is the header to include.
// proto/container-protocol.md says what it does, README.md and example/sum.cpp how it is used.
#pragma once

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <mutex>
#include <system_error>
#include <thread>

#include "clipper_protocol.hpp"

namespace clipper {

constexpr size_t kMaxConnections = 256;
constexpr std::chrono::seconds kPatience{5};  // for a HELLO, and at the end for an answer to be taken
using Clock = std::chrono::steady_clock;

inline uint64_t us_since(Clock::time_point start) {
  return uint64_t(std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count());
}

struct Options { std::string listen, model, version, data, input_type; };  // what a container is started with

// Reads so many bytes; false if the caller closes before. A size that is only claimed takes no memory.
inline bool receive(int fd, std::string& bytes, size_t size) {
  for (bytes.clear(); bytes.size() < size;) {
    const size_t start = bytes.size(), part = std::min(size - start, std::max(start, size_t{1} << 18));
    bytes.resize(start + part);
    const ssize_t got = recv(fd, &bytes[start], part, MSG_WAITALL);
    if (got == 0 || (got < 0 && errno != EINTR)) return false;
    bytes.resize(start + size_t(std::max<ssize_t>(got, 0)));
  }
  return true;
}

inline bool send_all(int fd, std::string_view bytes) {  // false if the caller has gone
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) return false;
    bytes.remove_prefix(size_t(std::max<ssize_t>(sent, 0)));
  }
  return true;
}

// Serves each connection on a thread of its own, which calls the model when it is its turn.
class Server {
  const Model model_;
  const InputType type_;
  const std::string token_, welcome_;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::map<int, Clock::time_point> hello_by_;  // of each connection, by its socket
  uint64_t next_turn_ = 0, turn_ = 0;          // batches run in the order in which they came
  Clock::time_point busy_since_;               // of the batch in hand, if next_turn_ is not turn_
  bool stopping_ = false;

 public:
  Server(const Model& model, const Options& options, const std::string& token)
      : model_(model), type_(model.input_type), token_(token),
        welcome_(welcome({options.model, options.version, model.input_type, model.runtime, model.max_batch})) {}

  // Until `wake` can be read from. Then finishes the batch in hand, and leaves callers 5 s to take their last answers;
  // false if there is one that has not, whose thread goes on.
  bool run(int listener, int wake) {
    for (pollfd waits[] = {{wake, POLLIN, 0}, {listener, POLLIN, 0}}; !waits[0].revents;) {
      if (poll(waits, 2, 1000) > 0 && waits[1].revents) accept_from(listener);
      std::lock_guard lock(mutex_);
      for (const auto& [fd, by] : hello_by_) if (by < Clock::now()) shutdown(fd, SHUT_RDWR);
    }
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.wait(lock, [this] { return turn_ == next_turn_; });
    for (const auto& [fd, _] : hello_by_) shutdown(fd, SHUT_RD);
    return changed_.wait_for(lock, kPatience, [this] { return hello_by_.empty(); });
  }

 private:
  void accept_from(int listener) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC), yes = 1;
    if (fd < 0) return void(usleep(10'000));  // the caller has gone already, or too many files are open
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);  // a unix socket refuses, and needs none
    std::lock_guard lock(mutex_);
    if (hello_by_.size() >= kMaxConnections) return void(close(fd));
    hello_by_[fd] = Clock::now() + kPatience;
    try {
      std::thread(&Server::serve, this, fd).detach();
    } catch (const std::system_error&) {  // no thread to be had: as if there were too many connections
      hello_by_.erase(fd);
      close(fd);
    }
  }
  void serve(int fd) {
    try {
      converse(fd);
    } catch (const std::exception& error) {
      std::cerr << "clipper: connection dropped: " << error.what() << std::endl;
      std::lock_guard lock(mutex_);
      // Only one that was not let in is told why.
      if (hello_by_[fd] < Clock::time_point::max()) send_all(fd, frame(ERROR, 0, error.what()));
    }
    std::lock_guard lock(mutex_);
    hello_by_.erase(fd);
    close(fd);
    changed_.notify_all();
  }
  void converse(int fd) {
    std::string head, body, answer;
    bool watches = false;
    for (size_t frames = 0; receive(fd, head, kHeaderBytes); ++frames) {
      const Header header = read_header(head, frames ? kMaxBody : kMaxHello);
      if (!receive(fd, body, header.body_bytes)) return;
      if (frames == 1) watches = header.kind == PING;
      if (frames == 0) answer = greet(fd, header.kind, body);
      else if (header.kind == PING && body.empty()) answer = frame(PONG, header.id, pack(busy_us()));
      else if (header.kind == PREDICT && watches) answer = frame(ERROR, header.id, "this connection only watches");
      else if (header.kind == PREDICT) answer = predict(header.id, body);
      else throw ProtocolViolation("caller sent a frame that is neither PREDICT nor PING after its HELLO");
      if (answer.empty() || !send_all(fd, answer)) return;
    }
  }
  std::string greet(int fd, Kind kind, const std::string& body) {
    if (kind != HELLO) throw ProtocolViolation("caller began with another frame than a HELLO");
    const std::string token = read_hello(body);
    size_t wrong = token.size() ^ token_.size();
    for (size_t at = 0; at < token_.size(); ++at) wrong |= size_t(token_[at] ^ token.c_str()[at % (token.size() + 1)]);
    if (wrong && !token_.empty()) throw ProtocolViolation("token is not the one that this container was started with");
    std::lock_guard lock(mutex_);
    hello_by_[fd] = Clock::time_point::max();
    return welcome_;
  }
  std::string predict(uint64_t id, const std::string& body) {
    Batch batch = read_predict(body);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this, mine = next_turn_++] { return mine == turn_; });
    busy_since_ = Clock::now();
    std::string answer;
    if (!stopping_) {
      lock.unlock();
      answer = answer_to(id, batch);
      lock.lock();
    }
    ++turn_;
    busy_since_ = Clock::now();  // of the next batch, if one waits
    changed_.notify_all();
    return answer;
  }
  // noexcept: with no memory even for an ERROR, the process had better end and be started anew.
  std::string answer_to(uint64_t id, Batch& batch) const noexcept {
    const Clock::time_point started = Clock::now();
    try {
      shape_rows(batch, type_);
      const Outputs outputs = evaluate(model_, batch.rows);
      if (!outputs.failures.empty())
        std::cerr << "clipper: " << outputs.failures.size() << " of " << outputs.count
                  << " inputs failed, the first with: " << outputs.failures.begin()->second << std::endl;
      return results(id, outputs, us_since(started));
    } catch (const std::exception& error) {
      return frame(ERROR, id, error.what());
    }
  }
  uint64_t busy_us() {
    std::lock_guard lock(mutex_);
    return turn_ == next_turn_ ? 0 : std::max<uint64_t>(us_since(busy_since_), 1);
  }
};

inline void open(int fd, const sockaddr* name, socklen_t size) {
  if (bind(fd, name, size) < 0 || listen(fd, 128) < 0) throw std::system_error(errno, std::generic_category());
}

inline int listen_unix(const std::string& path) {
  sockaddr_un name{AF_UNIX, {}};
  if (path.size() >= sizeof name.sun_path) throw std::invalid_argument("its path has over 107 bytes");
  path.copy(name.sun_path, path.size());
  const auto* const address = reinterpret_cast<const sockaddr*>(&name);
  const int kind = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const int probe = socket(AF_UNIX, kind, 0), fd = socket(AF_UNIX, kind, 0);
  struct stat file {};
  const bool is_socket = lstat(path.c_str(), &file) == 0 && S_ISSOCK(file.st_mode);
  // The socket of a process that has gone is replaced, all else is left for bind to refuse.
  if (is_socket && connect(probe, address, sizeof name) < 0 && errno == ECONNREFUSED) unlink(path.c_str());
  close(probe);
  const mode_t mask = umask(0177);  // nobody else may connect, from its first moment on
  open(fd, address, sizeof name);
  umask(mask);
  std::cerr << "clipper: listening on unix:" << path << std::endl;
  return fd;
}

inline int listen_tcp(const std::string& host, const std::string& port) {
  const bool in_brackets = host.size() > 1 && host[0] == '[';  // IPv6
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const std::string bare = in_brackets ? host.substr(1, host.size() - 2) : host;
  const int error = getaddrinfo(bare.c_str(), port.c_str(), &hints, &found), yes = 1;
  if (error) throw std::invalid_argument(gai_strerror(error));
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  open(fd, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  sockaddr_in6 chosen{};  // a port is at the same place in IPv4's
  socklen_t size = sizeof chosen;
  getsockname(fd, reinterpret_cast<sockaddr*>(&chosen), &size);
  std::cerr << "clipper: listening on tcp:" << host << ":" << ntohs(chosen.sin6_port) << std::endl;
  return fd;
}

inline Options read_options(int argc, char** argv) {
  Options options;
  const std::map<std::string, std::string*> known = {{"--listen", &options.listen},   {"--model", &options.model},
                                                     {"--version", &options.version}, {"--data", &options.data},
                                                     {"--input-type", &options.input_type}};
  for (int at = 1; at < argc; at += 2) {
    if (!known.count(argv[at]) || at + 1 == argc) throw std::invalid_argument(argv[at] + std::string(" is no option"));
    *known.at(argv[at]) = argv[at + 1];
  }
  const bool is_tcp = options.listen.rfind("tcp:", 0) == 0 && options.listen.rfind(':') > 4;  // a host is named
  const bool is_address = is_tcp || (options.listen.rfind("unix:", 0) == 0 && options.listen.size() > 5);
  if (!is_address || options.model.empty() || options.version.empty())
    throw std::invalid_argument("expected --listen unix:PATH|tcp:HOST:PORT --model NAME --version V");
  return options;
}

inline std::string take_token(bool is_tcp) {
  const char* const given = std::getenv("CLIPPER_TOKEN");
  const std::string token = given ? given : "";
  if (is_tcp && token.empty()) throw std::invalid_argument("a container on tcp needs a token: set CLIPPER_TOKEN");
  unsetenv("CLIPPER_TOKEN");  // not for the model to read, nor for processes that it starts
  return token;
}

inline Model loaded(const Options& options, const std::function<Model(const Options&)>& load) {
  Model model = load(options);
  const std::string declared = options.input_type.empty() ? model.input_type : options.input_type;
  if (!InputType(model.input_type).accepts(InputType(declared)))
    throw std::invalid_argument("input type " + declared + " does not suit it, it takes " + model.input_type);
  model.input_type = declared;
  return model;
}

inline int wake_writer = -1;  // all that a signal's handler can reach

// Serves the model that `load` returns, or throws for, until SIGTERM. Returns main's exit code.
inline int serve(int argc, char** argv, const std::function<Model(const Options&)>& load) {
  int stage = 2;
  try {
    const Options options = read_options(argc, argv);
    const bool is_tcp = options.listen[0] == 't';
    const std::string token = take_token(is_tcp);
    std::ofstream("/proc/self/oom_score_adj") << 500;  // short of memory, the kernel should not take Clipper first
    stage = 3;
    const Model model = loaded(options, load);
    stage = 4;
    const size_t scheme = options.listen.find(':') + 1, port = options.listen.rfind(':') + 1;
    const std::string place = options.listen.substr(scheme, is_tcp ? port - 1 - scheme : std::string::npos);
    const int listener = is_tcp ? listen_tcp(place, options.listen.substr(port)) : listen_unix(place);
    int wake[2];
    if (pipe2(wake, O_CLOEXEC) < 0) throw std::system_error(errno, std::generic_category());
    wake_writer = wake[1];
    std::signal(SIGTERM, [](int) { (void)!write(wake_writer, "", 1); });
    Server server(model, options, token);
    const bool is_quiet = server.run(listener, wake[0]);
    if (!is_tcp) unlink(place.c_str());
    if (!is_quiet) std::_Exit(0);  // a thread still uses the server
    return 0;
  } catch (const std::exception& error) {
    const char* const what[] = {"wrong usage: ", "the model cannot be loaded: ", "cannot listen: "};
    std::cerr << "clipper: " << what[stage - 2] << error.what() << std::endl;
    return stage;
  }
}

}  // namespace clipper
