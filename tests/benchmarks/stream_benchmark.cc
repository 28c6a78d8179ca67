// The way of an answer: 256 MiB of ESS over loopback through the server's own call and codec,
// against a bare gRPC stream of as many bytes. Servers and client are processes of their own, as in
// use; this program starts itself as either server.
//
//   stream_benchmark             prints the table
//   stream_benchmark ours|bare   a server; prints its port, and ends with its input
#include <grpcpp/grpcpp.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "ess/v1/profiler.grpc.pb.h"
#include "fmt/format.h"
#include "server/admission/request_queue.h"
#include "server/rpc/profile_messages.h"
#include "server/rpc/stream_call.h"
#include "server/telemetry/metrics.h"
#include "tests/benchmarks/timing.h"

extern char** environ;

namespace ess::rpc {
namespace {

constexpr int64_t kPositions = 1024;
constexpr int64_t kHeads = 255;  // Of a piece: with its header, a little less than 1 MiB.
constexpr int64_t kPieces = 256;
constexpr double kLeastShare = 0.8;
constexpr double kMostMemory = 16;  // MiB.

using ProfileStream = StreamCall<grpc::ServerWriteReactor<grpc::ByteBuffer>, grpc::ByteBuffer>;

OperatorEss OnePiece() {
  OperatorEss ess;
  ess.values.emplace_back(kHeads * kPositions);
  for (size_t i = 0; i < ess.values[0].size(); ++i) ess.values[0][i] = static_cast<float>(i % 977);
  return ess;
}

// As a profile sends: every piece is encoded from the engine's answer.
class OurCall : public ProfileStream {
 public:
  OurCall(const CallServices& services, admission::RequestQueue& queue,
          grpc::CallbackServerContext* call)
      : ProfileStream({services, queue, absl::Minutes(1)}, call, "Profile", "model", 0) {
    job_.measures = {{.kind = Measure::Kind::kTolerance, .value = 1e-3}};
    plan_.lengths = {kPositions};
    plan_.positions.emplace_back(kPositions);
    plan_.layers.push_back({.mixer = 0, .heads = std::vector<int64_t>(kHeads * kPieces)});
  }

  void Begin() override {
    if (Enqueue(admission::Priority::kNormal, 1)) StartQueued(admission::Weight::kLarge);
  }

 private:
  absl::Status Run() override {
    const OperatorEss ess = OnePiece();
    const auto write = [this](grpc::ByteBuffer message) { return Send(std::move(message)); };
    for (int64_t piece = 0; piece < kPieces; ++piece) {
      const absl::Status sent = WriteEss(job_, plan_, {0, 0, piece * kHeads, kHeads, ess}, write);
      if (!sent.ok()) return sent;
      const absl::Status awaited = AwaitReader([] {});  // As between two layers.
      if (!awaited.ok()) return awaited;
    }
    return absl::OkStatus();
  }

  ProfileJob job_;
  ProfilePlan plan_;
};

// One message, made once and written again and again.
class BareCall : public grpc::ServerWriteReactor<v1::ProfileResponse> {
 public:
  BareCall() {
    message_.mutable_ess()->add_slices()->set_values(
        std::string(kHeads * kPositions * sizeof(float), 'x'));
    Next();
  }
  void OnWriteDone(bool ok) override { ok ? Next() : Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (left_-- == 0) {
      Finish(grpc::Status::OK);
    } else {
      StartWrite(&message_);
    }
  }

  v1::ProfileResponse message_;
  int64_t left_ = kPieces;
};

class Ours final
    : public v1::EssProfiler::WithRawCallbackMethod_Profile<v1::EssProfiler::CallbackService> {
 public:
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Profile(grpc::CallbackServerContext* call,
                                                      const grpc::ByteBuffer*) override {
    return ProfileStream::Start<OurCall>(services_, queue_, call);
  }

 private:
  telemetry::Metrics metrics_;
  OpenCalls calls_;
  const Access access_{nullptr};
  const CallServices services_{metrics_, calls_, access_, absl::Hours(1)};
  admission::RequestQueue queue_{{}, metrics_};
};

class Bare final : public v1::EssProfiler::CallbackService {
 public:
  grpc::ServerWriteReactor<v1::ProfileResponse>* Profile(grpc::CallbackServerContext*,
                                                         const v1::ProfileRequest*) override {
    return new BareCall;
  }
};

int Serve(grpc::Service& service) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  std::cout << port << std::endl;
  std::cin.get();  // Until the client closes it.
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}

double MiB(pid_t process, const std::string& field) {
  std::ifstream status(fmt::format("/proc/{}/status", process));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) return std::atof(line.substr(field.size()).c_str()) / 1024;
  }
  return 0;
}

struct Server {
  Server(const char* program, const char* way) {
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) std::exit(1);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    for (const int end : {to[0], to[1], from[0], from[1]}) {
      posix_spawn_file_actions_addclose(&actions, end);
    }
    const char* arguments[] = {program, way, nullptr};
    posix_spawn(&process, "/proc/self/exe", &actions, nullptr, const_cast<char**>(arguments),
                environ);
    close(to[0]);
    close(from[1]);
    input = to[1];
    FILE* output = fdopen(from[0], "r");
    if (std::fscanf(output, "%d", &port) != 1) std::exit(1);
  }
  ~Server() {
    close(input);
    waitpid(process, nullptr, 0);
  }
  pid_t process = 0;
  int input = 0;
  int port = 0;
};

struct Way {
  Way(const char* program, const char* name)
      : server(program, name),
        stub(v1::EssProfiler::NewStub(grpc::CreateChannel(fmt::format("127.0.0.1:{}", server.port),
                                                          grpc::InsecureChannelCredentials()))) {}

  // MiB per second of one call.
  double Read() const {
    grpc::ClientContext context;
    const double start = benchmarks::Now();
    const auto reader = stub->Profile(&context, v1::ProfileRequest());
    v1::ProfileResponse message;
    double bytes = 0;
    while (reader->Read(&message)) {
      for (const v1::EssSlice& slice : message.ess().slices()) {
        bytes += static_cast<double>(slice.values().size());
      }
    }
    if (!reader->Finish().ok()) std::exit(1);
    return bytes / (1 << 20) / (benchmarks::Now() - start);
  }

  Server server;
  std::unique_ptr<v1::EssProfiler::Stub> stub;
};

int Compare(const char* program) {
  constexpr int kRounds = 20;
  double best[2] = {}, memory[2] = {};
  const Way ways[2] = {{program, "ours"}, {program, "bare"}};
  for (int way = 0; way < 2; ++way) {
    const double before = MiB(ways[way].server.process, "VmHWM:");
    ways[way].Read();
    memory[way] = MiB(ways[way].server.process, "VmHWM:") - before;
  }
  std::vector<double> shares;
  for (int round = 0; round < kRounds; ++round) {
    double speed[2];
    for (int way = 0; way < 2; ++way) {
      speed[way] = ways[way].Read();
      best[way] = std::max(best[way], speed[way]);
    }
    shares.push_back(speed[0] / speed[1]);
  }
  std::sort(shares.begin(), shares.end());
  const double share = shares[shares.size() / 2];
  fmt::print(
      "an answer of {} MiB over loopback, fastest of {} rounds in turns; share: their median\n",
      kPieces * kHeads * kPositions * 4 >> 20, kRounds);
  fmt::print("{:40} {:>8} {:>16}\n", "", "MiB/s", "server memory");
  fmt::print("{:40} {:8.0f} {:12.1f} MiB\n", "bare stream of one message", best[1], memory[1]);
  fmt::print("{:40} {:8.0f} {:12.1f} MiB\n", "ours, encoded piece by piece", best[0], memory[0]);
  fmt::print("{:.2f}x of the bare throughput (at least {}x), {:.1f} MiB (at most {} MiB)  {}\n",
             share, kLeastShare, memory[0], kMostMemory,
             share >= kLeastShare && memory[0] <= kMostMemory ? "ok" : "MISSED");
  return 0;
}

}  // namespace
}  // namespace ess::rpc

int main(int argc, char** argv) {
  const std::string way = argc > 1 ? argv[1] : "";
  if (way == "ours") {
    ess::rpc::Ours service;
    return ess::rpc::Serve(service);
  }
  if (way == "bare") {
    ess::rpc::Bare service;
    return ess::rpc::Serve(service);
  }
  return ess::rpc::Compare(argv[0]);
}
