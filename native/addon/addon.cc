// The engine as a Node object: with its neighbours here, the only file that includes napi.h.
//
// Invariants: every Napi call is made on the JavaScript thread. I/O threads reach it by one
// ThreadSafeFunction that carries nothing (NonBlockingCall); what is due is collected there. The
// function keeps the process alive only while promises are pending. Arguments are checked here once
// more only as far as memory safety asks: TypeScript has typed them.
#include <napi.h>

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "addon/events.h"
#include "addon/system.h"
#include "engine/engine.h"

namespace metadisk {

namespace {

class EngineObject final : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Engine",
                       {
                           InstanceMethod<&EngineObject::start>("start"),
                           InstanceMethod<&EngineObject::install>("install"),
                           InstanceMethod<&EngineObject::remove>("remove"),
                           InstanceMethod<&EngineObject::adopt>("adopt"),
                           InstanceMethod<&EngineObject::disconnect>("disconnect"),
                           InstanceMethod<&EngineObject::drain>("drain"),
                           InstanceMethod<&EngineObject::resync>("resync"),
                           InstanceMethod<&EngineObject::verify>("verify"),
                           InstanceMethod<&EngineObject::raid5Job>("raid5Job"),
                           InstanceMethod<&EngineObject::cancelResync>("cancelResync"),
                           InstanceMethod<&EngineObject::settle>("settle"),
                           InstanceMethod<&EngineObject::marked>("marked"),
                           InstanceMethod<&EngineObject::busy>("busy"),
                           InstanceMethod<&EngineObject::counters>("counters"),
                           InstanceMethod<&EngineObject::flush>("flush"),
                           InstanceMethod<&EngineObject::stop>("stop"),
                       });
  }

  explicit EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {}
  ~EngineObject() override { close(nullptr); }

 private:
  using Function = Napi::TypedThreadSafeFunction<EngineObject, void>;

  static void onDoorbell(Napi::Env env, Napi::Function, EngineObject* self, void*) {
    if (env != nullptr && self->engine_) self->collect(env);
  }

  // One function, not a lambda at each place: the hook is removed by the address it was added with.
  static void atExit(void* object) {
    auto* const self = static_cast<EngineObject*>(object);
    self->hooked_ = false;
    self->close(nullptr);
  }

  Napi::Value fail(const Napi::Env& env, const std::string& why) {
    Napi::Error::New(env, why).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  bool running(const Napi::Env& env) {
    if (engine_) return true;
    fail(env, "the engine is not started");
    return false;
  }

  Napi::Value start(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (engine_) return fail(env, "the engine is started already");
    if (info.Length() < 2 || !info[0].IsObject() || !info[1].IsFunction()) return fail(env, "start(options, wake)");
    const auto given = info[0].As<Napi::Object>();
    const auto number = [&](const char* name, std::uint32_t low, std::uint32_t high, std::uint32_t otherwise) {
      const Napi::Value value = given.Get(name);
      return value.IsNumber() ? std::clamp(value.As<Napi::Number>().Uint32Value(), low, high) : otherwise;
    };
    EngineOptions options;
    options.threads = number("threads", 1, 64, 1);
    options.queueDepth = number("queueDepth", 1, 1024, 128);
    options.maxRequestBytes = number("maxRequestBytes", 4096, 64U << 20U, 32U << 20U);
    options.spinMicros = number("spinMicros", 0, 1000, 20);
    options.regionSweepMillis = number("regionSweepMillis", 10, 3'600'000, 10'000);
    const Napi::Value cache = given.Get("raid5CacheBytes");
    if (cache.IsNumber())
      options.raid5CacheBytes = static_cast<std::size_t>(
          std::clamp<std::int64_t>(cache.As<Napi::Number>().Int64Value(), 8LL << 20U, 64LL << 30U));
    const Napi::Value journal = given.Get("raid5Journal");
    if (journal.IsBoolean()) options.raid5Journal = journal.As<Napi::Boolean>().Value();
    wake_ = Napi::Persistent(info[1].As<Napi::Function>());
    doorbell_ = TypedDoorbell::New(env, "metadisk doorbell", 0, 1, this);
    doorbell_.Unref(env);
    engine_ = std::make_unique<Engine>(options, [this] { doorbell_.NonBlockingCall(); });
    napi_add_env_cleanup_hook(env, atExit, this);
    hooked_ = true;
    Ref();  // The threads point here until stop().
    return env.Undefined();
  }

  void collect(Napi::Env env) {
    const Napi::HandleScope scope(env);
    engine_->collect();
    if (ended_) close(env);
    if (engine_ && engine_->hasEvents()) wake_.Call({});
  }

  // A promise that an engine callback settles. An empty text is success.
  Napi::Value promise(Napi::Env env, const std::function<void(Engine::Done)>& begin) {
    auto deferred = Napi::Promise::Deferred::New(env);
    const std::uint64_t id = nextPromise_++;
    pending_.emplace(id, deferred);
    if (pending_.size() == 1) doorbell_.Ref(env);
    begin([this, id](const std::string& error) { resolve(id, error); });
    return deferred.Promise();
  }

  void resolve(std::uint64_t id, const std::string& error) {
    const auto found = pending_.find(id);
    if (found == pending_.end()) return;
    const Napi::Promise::Deferred deferred = found->second;
    pending_.erase(found);
    const Napi::Env env = deferred.Env();
    const Napi::HandleScope scope(env);
    if (pending_.empty()) doorbell_.Unref(env);
    if (error.empty()) {
      deferred.Resolve(env.Undefined());
    } else {
      deferred.Reject(Napi::Error::New(env, error).Value());
    }
  }

  Napi::Value install(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    if (info.Length() < 4 || !info[1].IsTypedArray() || !info[2].IsArray() ||
        !(info[3].IsNull() || info[3].IsTypedArray())) {
      return fail(env, "install(device, plan, components, dirty)");
    }
    const auto device = info[0].ToNumber().Uint32Value();
    const auto plan = info[1].As<Napi::Uint8Array>();
    const auto list = info[2].As<Napi::Array>();
    std::vector<ComponentSpec> components;
    for (std::uint32_t i = 0; i < list.Length(); ++i) {
      const auto given = list.Get(i).ToObject();
      ComponentSpec spec;
      spec.component = given.Get("component").ToNumber().Uint32Value();
      spec.fd = given.Get("fd").ToNumber().Int32Value();
      spec.direct = given.Get("direct").ToBoolean();
      spec.align = given.Get("align").ToNumber().Uint32Value();
      spec.blockDevice = given.Get("blockDevice").ToBoolean();
      spec.size = static_cast<std::uint64_t>(given.Get("size").ToNumber().Int64Value()) * 512U;
      spec.timeoutMillis = given.Get("timeoutMillis").ToNumber().Uint32Value();
      components.push_back(spec);
    }
    const std::span bytes(reinterpret_cast<const std::byte*>(plan.Data()), plan.ByteLength());
    std::span<const std::byte> dirty;
    if (!info[3].IsNull()) {
      const auto given = info[3].As<Napi::Uint8Array>();
      dirty = {reinterpret_cast<const std::byte*>(given.Data()), given.ByteLength()};
    }
    return promise(env,
                   [&](Engine::Done done) { engine_->install(device, bytes, components, dirty, std::move(done)); });
  }

  Napi::Value remove(const Napi::CallbackInfo& info) {
    if (!running(info.Env())) return info.Env().Undefined();
    const auto device = info[0].ToNumber().Uint32Value();
    return promise(info.Env(), [&](Engine::Done done) { engine_->remove(device, std::move(done)); });
  }

  Napi::Value flush(const Napi::CallbackInfo& info) {
    if (!running(info.Env())) return info.Env().Undefined();
    const auto device = info[0].ToNumber().Uint32Value();
    return promise(info.Env(), [&](Engine::Done done) { engine_->flush(device, std::move(done)); });
  }

  Napi::Value adopt(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    if (info.Length() < 4 || !info[2].IsObject() || !info[3].IsTypedArray())
      return fail(env, "adopt(fd, device, terms, residual)");
    const auto given = info[2].As<Napi::Object>();
    nbd::Terms terms;
    terms.structured = given.Get("structuredReplies").ToBoolean();
    terms.extended = given.Get("extendedHeaders").ToBoolean();
    terms.readOnly = given.Get("readOnly").ToBoolean();
    terms.minBlock = std::max(1U, given.Get("minBlockBytes").ToNumber().Uint32Value());
    if (!std::has_single_bit(terms.minBlock)) return fail(env, "minBlockBytes is not a power of two");
    const Napi::Value contexts = given.Get("contexts");
    if (contexts.IsArray()) {
      const auto list = contexts.As<Napi::Array>();
      for (std::uint32_t i = 0; i < std::min(list.Length(), 2U); ++i) {
        const auto context = list.Get(i).ToObject();
        const bool state = context.Get("name").ToString().Utf8Value() == "metadisk:state";
        terms.contexts.push_back({context.Get("id").ToNumber().Uint32Value(),
                                  state ? nbd::ContextKind::state : nbd::ContextKind::allocation});
      }
    }
    const auto residual = info[3].As<Napi::Uint8Array>();
    std::string error;
    const std::uint32_t id =
        engine_->adopt(info[0].ToNumber().Int32Value(), info[1].ToNumber().Uint32Value(), std::move(terms),
                       {reinterpret_cast<const std::byte*>(residual.Data()), residual.ByteLength()}, error);
    if (id == 0) return fail(env, error);
    return Napi::Number::New(env, id);
  }

  Napi::Value disconnect(const Napi::CallbackInfo& info) {
    if (running(info.Env())) {
      engine_->disconnect(info[0].ToNumber().Uint32Value(), info[1].ToString().Utf8Value() == "now");
    }
    return info.Env().Undefined();
  }

  Napi::Value drain(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const Napi::Array out = Napi::Array::New(env);
    if (!engine_) return out;
    std::uint32_t at = 0;
    for (const EngineEvent& event : engine_->drain(info[0].ToNumber().Uint32Value()))
      out.Set(at++, eventObject(env, event));
    return out;
  }

  Napi::Value resync(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    if (info.Length() < 2 || !info[1].IsObject()) return fail(env, "resync(device, job)");
    const auto given = info[1].As<Napi::Object>();
    const std::string kind = given.Get("kind").ToString().Utf8Value();
    ResyncJob job;
    if (kind == "optimized") {
      job.kind = ResyncKind::optimized;
    } else if (kind == "component") {
      job.kind = ResyncKind::component;
      job.component = static_cast<std::uint32_t>(count(given, "component"));
    } else if (kind != "full") {
      return fail(env, "resync: unknown kind");
    }
    job.job = count(given, "job");
    job.target = static_cast<std::uint32_t>(count(given, "target"));
    job.from = count(given, "from");
    job.bufferBlocks = bufferBlocks(given);
    job.bytesPerSecond = count(given, "bytesPerSecond");
    job.checkpointMillis =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(count(given, "checkpointMillis"), UINT32_MAX));
    engine_->resync(info[0].ToNumber().Uint32Value(), job);
    return env.Undefined();
  }

  Napi::Value verify(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    if (info.Length() < 2 || !info[1].IsObject()) return fail(env, "verify(device, job)");
    const auto given = info[1].As<Napi::Object>();
    VerifyJob job;
    job.job = count(given, "job");
    job.from = count(given, "from");
    job.repair = given.Get("repair").ToBoolean();
    job.bufferBlocks = bufferBlocks(given);
    job.bytesPerSecond = count(given, "bytesPerSecond");
    engine_->verify(info[0].ToNumber().Uint32Value(), job);
    return env.Undefined();
  }

  Napi::Value raid5Job(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    if (info.Length() < 2 || !info[1].IsObject()) return fail(env, "raid5Job(device, job)");
    const auto given = info[1].As<Napi::Object>();
    const std::string kind = given.Get("kind").ToString().Utf8Value();
    Raid5Job job;
    if (kind == "initialise") {
      job.kind = Raid5Work::initialise;
    } else if (kind == "parity") {
      job.kind = Raid5Work::parity;
    } else if (kind == "copy") {
      job.kind = Raid5Work::copy;
    } else if (kind != "regenerate") {
      return fail(env, "raid5Job: unknown kind");
    }
    const Napi::Value columns = given.Get("columns");
    if (!columns.IsArray()) return fail(env, "raid5Job: no columns");
    const auto list = columns.As<Napi::Array>();
    for (std::uint32_t i = 0; i < list.Length(); ++i) {
      const std::int64_t column = list.Get(i).ToNumber().Int64Value();
      if (column < 0 || column > 63) return fail(env, "raid5Job: no such column");
      job.columns |= std::uint64_t{1} << column;
    }
    job.job = count(given, "job");
    job.repair = given.Get("repair").ToBoolean();
    job.from = count(given, "from");
    job.bufferBlocks = bufferBlocks(given);
    job.bytesPerSecond = count(given, "bytesPerSecond");
    job.checkpointMillis =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(count(given, "checkpointMillis"), UINT32_MAX));
    engine_->raid5Job(info[0].ToNumber().Uint32Value(), job);
    return env.Undefined();
  }

  static std::uint64_t count(const Napi::Object& given, const char* name) {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(0, given.Get(name).ToNumber().Int64Value()));
  }
  static std::uint32_t bufferBlocks(const Napi::Object& given) {
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(count(given, "bufferBlocks"), 1, 2048));
  }

  Napi::Value settle(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    const std::string verdict = info[2].ToString().Utf8Value();
    if (verdict != "resume" && verdict != "fail") return fail(env, "settle: unknown verdict");
    const auto hold = static_cast<std::uint64_t>(info[1].ToNumber().Int64Value());
    engine_->settle(info[0].ToNumber().Uint32Value(), hold, verdict == "resume");
    return env.Undefined();
  }

  Napi::Value marked(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    const auto ticket = static_cast<std::uint64_t>(info[1].ToNumber().Int64Value());
    engine_->marked(info[0].ToNumber().Uint32Value(), ticket, info[2].ToBoolean());
    return env.Undefined();
  }

  Napi::Value busy(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::uint32_t component = info[0].ToNumber().Uint32Value();
    const bool left = std::find(left_.begin(), left_.end(), component) != left_.end();
    return Napi::Boolean::New(env, engine_ ? engine_->busy(component) : left);
  }

  Napi::Value cancelResync(const Napi::CallbackInfo& info) {
    if (running(info.Env())) engine_->cancelResync(info[0].ToNumber().Uint32Value());
    return info.Env().Undefined();
  }

  Napi::Value counters(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto out = Napi::BigUint64Array::New(env, kCounters);
    if (!engine_) return out;
    const auto sums = engine_->counters(info[0].ToNumber().Uint32Value());
    std::copy(sums.begin(), sums.end(), out.Data());
    return out;
  }

  Napi::Value stop(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!engine_) {
      auto deferred = Napi::Promise::Deferred::New(env);
      deferred.Resolve(env.Undefined());
      return deferred.Promise();
    }
    return promise(env, [this](Engine::Done done) {
      engine_->stop([this, done = std::move(done)](const std::string& error) {
        ended_ = true;
        done(error);
      });
    });
  }

  // Threads joined, promises settled, doorbell silent. `env` is null when JavaScript may not run any more.
  void close(napi_env env) {
    if (!engine_) return;
    if (env == nullptr) pending_.clear();
    engine_->stopNow();
    if (env != nullptr) {
      engine_->collect();
      while (!pending_.empty()) resolve(pending_.begin()->first, "the engine is stopped");
      if (hooked_) {
        napi_remove_env_cleanup_hook(env, atExit, this);
        hooked_ = false;
      }
    }
    left_ = engine_->busyComponents();
    engine_.reset();
    doorbell_.Release();
    ended_ = false;
    if (env != nullptr) {
      wake_.Reset();
      Unref();
    }
  }

  using TypedDoorbell = Napi::TypedThreadSafeFunction<EngineObject, void, &EngineObject::onDoorbell>;

  std::unique_ptr<Engine> engine_;
  TypedDoorbell doorbell_;
  Napi::FunctionReference wake_;
  std::unordered_map<std::uint64_t, Napi::Promise::Deferred> pending_;
  std::uint64_t nextPromise_ = 1;
  std::vector<std::uint32_t> left_;  // busy when the engine ended
  bool hooked_ = false;
  bool ended_ = false;
};

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("Engine", EngineObject::define(env));
  defineSystem(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(metadisk, init)

}  // namespace metadisk
