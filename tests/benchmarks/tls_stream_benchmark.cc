// What TLS and tokens cost where nothing else happens: a stream of 64 MiB in messages of 1 MiB over
// loopback, plain and locked in turns. Server and client are two processes. A profile computes
// between its messages: tls_benchmark.py has that.
#include <grpcpp/grpcpp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "ess/v1/profiler.grpc.pb.h"
#include "fmt/format.h"
#include "server/app/listener.h"
#include "server/app/server_config.h"
#include "server/base/log.h"
#include "server/rpc/access.h"
#include "server/rpc/status_to_grpc.h"
#include "server/security/access_file.h"
#include "tests/benchmarks/timing.h"
#include "tests/support/test_certificates.h"

namespace ess::rpc {
namespace {

constexpr int kMessages = 64;
constexpr size_t kMessageBytes = (1 << 20) - 1024;
constexpr int kRounds = 20;
constexpr char kHost[] = "server.test";

// One message, made once and written again and again.
class BareCall : public grpc::ServerWriteReactor<v1::ProfileResponse> {
 public:
  explicit BareCall(const absl::Status& admitted) {
    if (!admitted.ok()) {
      Finish(ToGrpcStatus(admitted));
      return;
    }
    message_.mutable_ess()->add_slices()->set_values(std::string(kMessageBytes, 'x'));
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
  int left_ = kMessages;
};

class BareService final : public v1::EssProfiler::CallbackService {
 public:
  explicit BareService(const security::AccessFile* file) : access_(file) {}
  grpc::ServerWriteReactor<v1::ProfileResponse>* Profile(grpc::CallbackServerContext* call,
                                                         const v1::ProfileRequest*) override {
    return new BareCall(access_.Check(*call, "Profile").status());
  }

 private:
  const Access access_;
};

struct Listener {
  Listener(const v1::ServerConfig& config, const security::LiveCertificates* certificates,
           const security::AccessFile* file)
      : service(file) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", MakeServerCredentials(config, certificates), &port);
    SetConnectionLimits(config, builder);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
  }
  BareService service;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

// Writes both ports, and serves until `input` is closed.
void Serve(const v1::ServerConfig& config, int input, int output) {
  const auto certificates = OpenCertificates(config);
  const auto access = security::AccessFile::Open(config.access_file(), absl::Seconds(1));
  ESS_CHECK(certificates.ok() && access.ok());
  const Listener plain(config, nullptr, nullptr);
  const Listener locked(config, certificates->get(), access->get());
  const int ports[2] = {plain.port, locked.port};
  ESS_CHECK(write(output, ports, sizeof(ports)) == sizeof(ports));
  char end;
  while (read(input, &end, 1) > 0) {
  }
}

double SecondsOf(v1::EssProfiler::Stub& stub, const std::string& token) {
  grpc::ClientContext context;
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  const double start = benchmarks::Now();
  const auto reader = stub.Profile(&context, v1::ProfileRequest());
  v1::ProfileResponse message;
  int messages = 0;
  while (reader->Read(&message)) ++messages;
  ESS_CHECK(reader->Finish().ok() && messages == kMessages);
  return benchmarks::Now() - start;
}

std::string Write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
  return path.string();
}

int Compare(const int ports[2], const std::string& certificate, const std::string& token) {
  grpc::ChannelArguments arguments;
  arguments.SetSslTargetNameOverride(kHost);
  const std::unique_ptr<v1::EssProfiler::Stub> stubs[2] = {
      v1::EssProfiler::NewStub(grpc::CreateChannel(fmt::format("127.0.0.1:{}", ports[0]),
                                                   grpc::InsecureChannelCredentials())),
      v1::EssProfiler::NewStub(grpc::CreateCustomChannel(
          fmt::format("127.0.0.1:{}", ports[1]),
          grpc::SslCredentials({.pem_root_certs = certificate}), arguments))};
  double fastest[2] = {1e9, 1e9};
  for (int round = 0; round < kRounds; ++round) {
    fastest[0] = std::min(fastest[0], SecondsOf(*stubs[0], ""));
    fastest[1] = std::min(fastest[1], SecondsOf(*stubs[1], token));
  }
  fmt::print("a stream of {} MiB and nothing else, fastest of {} rounds in turns\n", kMessages,
             kRounds);
  const char* const names[2] = {"plain", "TLS and a token"};
  for (int way = 0; way < 2; ++way) {
    fmt::print("{:20} {:7.1f} ms  {:6.0f} MiB/s\n", names[way], 1e3 * fastest[way],
               kMessages / fastest[way]);
  }
  fmt::print("TLS and tokens take {:.2f}x the time, {:.2f} ms more for each MiB\n",
             fastest[1] / fastest[0], 1e3 * (fastest[1] - fastest[0]) / kMessages);
  return 0;
}

int Run() {
  std::string pattern = (std::filesystem::temp_directory_path() / "tls_stream.XXXXXX").string();
  const std::filesystem::path folder = mkdtemp(pattern.data());
  const testing::TestCertificate made = testing::MakeCertificate(kHost);
  const std::string token = security::NewToken();
  v1::ServerConfig config;
  ESS_CHECK(CompleteServerConfig(config).ok());
  config.set_tls_certificate(Write(folder / "server.pem", made.certificate));
  config.set_tls_key(Write(folder / "server.key", made.key));
  config.set_access_file(
      Write(folder / "access",
            security::AccessLine({.name = "a", .role = security::Role::kUser}, token)));
  std::filesystem::permissions(folder / "access", std::filesystem::perms::owner_read);
  int to[2], from[2];
  ESS_CHECK(pipe(to) == 0 && pipe(from) == 0);
  const pid_t server = fork();  // Before gRPC has any thread.
  if (server == 0) {
    close(to[1]);
    Serve(config, to[0], from[1]);
    std::_Exit(0);
  }
  int ports[2];
  ESS_CHECK(read(from[0], ports, sizeof(ports)) == sizeof(ports));
  const int code = Compare(ports, made.certificate, token);
  close(to[1]);
  waitpid(server, nullptr, 0);
  std::filesystem::remove_all(folder);
  return code;
}

}  // namespace
}  // namespace ess::rpc

int main() { return ess::rpc::Run(); }
