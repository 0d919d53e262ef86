// A network in ONNX behind HTTP, both in one process: coupled_server MODEL PORT.
//
// One thread speaks HTTP and reads JSON, another one calls the model about all queries that came while it was busy. So a
// query crosses no process. GET /times answers the seconds that the oldest query of each batch has waited and that batches
// have taken, summed, as Clipper's metrics do.
#include <drogon/drogon.h>

#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "onnx_net.hpp"

using Clock = std::chrono::steady_clock;
using Reply = std::function<void(const drogon::HttpResponsePtr&)>;

static constexpr size_t max_batch = 1024;

struct Query {
  std::vector<float> pixels;
  Reply reply;
  Clock::time_point came;
};

struct Times {
  double waited_s = 0, took_s = 0;
  uint64_t queries = 0, batches = 0;
};

static double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

static drogon::HttpResponsePtr json(drogon::HttpStatusCode status, std::string body) {
  auto response = drogon::HttpResponse::newHttpResponse();
  response->setStatusCode(status);
  response->setContentTypeCode(drogon::CT_APPLICATION_JSON);
  response->setBody(std::move(body));
  return response;
}

class Queue {
 public:
  void push(Query query) {
    std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(query));
    came_.notify_one();
  }

  Times times() {
    std::lock_guard lock(mutex_);
    return times_;
  }

  [[noreturn]] void work(Net& net) {
    for (;;) {
      std::vector<Query> batch;
      {
        std::unique_lock lock(mutex_);
        came_.wait(lock, [this] { return !waiting_.empty(); });
        const auto end = waiting_.begin() + std::min(waiting_.size(), max_batch);
        std::move(waiting_.begin(), end, std::back_inserter(batch));
        waiting_.erase(waiting_.begin(), end);
      }
      const auto began = Clock::now();
      std::vector<float> pixels;
      for (const Query& query : batch) pixels.insert(pixels.end(), query.pixels.begin(), query.pixels.end());
      const auto labels = net.labels(pixels);
      const double took_s = seconds(Clock::now() - began);
      for (size_t row = 0; row < batch.size(); ++row)
        batch[row].reply(json(drogon::k200OK, "{\"output\":" + std::to_string(labels[row]) + "}"));
      std::lock_guard lock(mutex_);
      times_.waited_s += seconds(began - batch.front().came);
      times_.took_s += took_s;
      times_.queries += batch.size();
      times_.batches += 1;
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<Query> waiting_;
  Times times_;
};

// The numbers between the brackets of {"input": [...]}; fewer than expected if one cannot be read.
static std::vector<float> read_pixels(std::string_view body) {
  std::vector<float> pixels;
  pixels.reserve(Net::width);
  const size_t begin = body.find('[');
  const char* at = begin == body.npos ? body.end() : body.data() + begin + 1;
  while (at < body.end()) {
    while (at < body.end() && (*at == ' ' || *at == ',')) ++at;
    float value;
    const auto [next, error] = std::from_chars(at, body.end(), value);
    if (error != std::errc()) break;
    pixels.push_back(value);
    at = next;
  }
  return pixels;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: coupled_server MODEL PORT\n");
    return 2;
  }
  Net net(argv[1]);
  Queue queue;
  std::thread model([&] { queue.work(net); });
  auto& app = drogon::app();
  app.registerHandler(
      "/predict",
      [&](const drogon::HttpRequestPtr& request, Reply&& reply) {
        auto pixels = read_pixels(request->body());
        if (pixels.size() != Net::width)
          return reply(json(drogon::k400BadRequest, "{\"error\":\"expected 784 numbers\"}"));
        queue.push({std::move(pixels), std::move(reply), Clock::now()});
      },
      {drogon::Post});
  app.registerHandler(
      "/times",
      [&](const drogon::HttpRequestPtr&, Reply&& reply) {
        const Times times = queue.times();
        reply(json(drogon::k200OK, "{\"waited_s\":" + std::to_string(times.waited_s) + ",\"took_s\":" +
                                       std::to_string(times.took_s) + ",\"queries\":" + std::to_string(times.queries) +
                                       ",\"batches\":" + std::to_string(times.batches) + "}"));
      },
      {drogon::Get});
  app.setThreadNum(1).setLogLevel(trantor::Logger::kWarn).addListener("127.0.0.1", std::atoi(argv[2])).run();
  std::_Exit(0);
}
