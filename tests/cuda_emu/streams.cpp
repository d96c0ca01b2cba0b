/* Streams, events, copies and graphs: work waits in its stream until somebody asks for it, as late as CUDA allows. What the host changes too
 * soon, reads too soon or forgets to order shows then; what another stream does too soon, where PACELINE_EMULATED_ORDER says that streams
 * nobody waits for go first (1) or that each piece is drawn from those that could be next (any other number but 0). The rules are those of "CUDA Runtime API: API synchronization behavior" and
 * "Stream Management" (cudaStreamBeginCapture), and of the programming guide's "CUDA Graphs". */
#include "emu.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>

std::recursive_mutex pl_emu_device;
int pl_emu_refuse_capture;

using lock = std::lock_guard<std::recursive_mutex>;
using stamp = std::shared_ptr<pl_emu_stamp>;

struct pl_emu_event {
    int gpu;
    bool timed;
    stamp last; /* none: never recorded */
};
struct pl_emu_graph {
    std::vector<pl_emu_work> work;
};
struct pl_emu_graph_exec {
    std::shared_ptr<std::vector<pl_emu_work>> work; /* alive until its last launch has run */
};

static const unsigned order = (unsigned)pl_emu_number("PACELINE_EMULATED_ORDER", 0);
static std::vector<pl_emu_stream *> &streams = *new std::vector<pl_emu_stream *>; /* the default ones too */
static pl_emu_stream *legacy[PL_EMU_MOST_GPUS]; /* the default streams: those here are no "blocking" ones, and do not wait for them */
static cudaError_t wrong[PL_EMU_MOST_GPUS];
static thread_local pl_emu_stream *captures; /* what this thread captures */

static void die(const char *what)
{
    fprintf(stderr, "cuda emulation: %s\n", what);
    abort();
}

static pl_emu_stream *real(cudaStream_t s)
{
    pl_emu_stream *&l = legacy[pl_emu_gpu()];

    if (!s && !l) {
        l = new pl_emu_stream{pl_emu_gpu(), 0, {}, false, false, false, {}, {}};
        streams.push_back(l);
    }
    return s ? s : l;
}

static void run_until(pl_emu_stream *s, const pl_emu_stamp *there);

/* The first piece of a stream's work, and what that waits for. */
static void step(pl_emu_stream *s)
{
    pl_emu_work &w = s->queue.front();

    if (s->running)
        die("streams that wait for each other");
    s->running = true;
    if (w.behind && !w.behind->there)
        run_until(w.behind->stream, w.behind.get());
    if (w.run)
        w.run();
    s->running = false;
    s->queue.pop_front();
}

/* A piece of some stream, for one who waits for s. */
static void go_on(pl_emu_stream *s)
{
    static uint64_t drawn;
    std::vector<pl_emu_stream *> can;

    for (pl_emu_stream *t : streams)
        if (order && (order > 1 || t != s) && !t->running && !t->queue.empty() && (!t->queue.front().behind || t->queue.front().behind->there))
            can.push_back(t);
    drawn = drawn * 6364136223846793005u + 1442695040888963407u + order;
    step(can.empty() ? s : order == 1 ? can[0] : can[(drawn >> 33) % can.size()]);
}

static void run_until(pl_emu_stream *s, const pl_emu_stamp *there)
{
    while (!(there && there->there) && !s->queue.empty())
        go_on(s);
}

bool pl_emu_in_use(const void *p, size_t n)
{
    lock hold(pl_emu_device);

    for (const pl_emu_stream *s : streams)
        for (const pl_emu_work &w : s->queue)
            for (const auto &r : w.of)
                if (r.first < (const char *)p + n && (const char *)p < r.first + r.second)
                    return true;
    return false;
}

static void add(pl_emu_stream *s, pl_emu_work w)
{
    s->spoilt = s->spoilt || pl_emu_refuse_capture == 2;
    if (s->capturing)
        s->captured.push_back(std::move(w));
    else
        s->queue.push_back(std::move(w));
}

cudaError_t pl_emu_queue(cudaStream_t given, std::function<void()> run)
{
    lock hold(pl_emu_device);

    add(real(given), {std::move(run), nullptr});
    return cudaSuccess;
}

cudaError_t pl_emu_unsafe()
{
    if (!captures)
        return cudaSuccess;
    captures->spoilt = true;
    return pl_emu_give(cudaErrorStreamCaptureUnsupported);
}

void pl_emu_finish(int gpu)
{
    lock hold(pl_emu_device);

    for (pl_emu_stream *s : streams)
        if (s->gpu == gpu)
            run_until(s, NULL);
}

void pl_emu_went_wrong(int gpu, cudaError_t e)
{
    wrong[gpu] = e;
}

static cudaError_t told(int gpu)
{
    cudaError_t e = wrong[gpu];

    wrong[gpu] = cudaSuccess;
    return e == cudaSuccess ? e : pl_emu_give(e);
}

static std::function<void()> with_copy(void (*run)(const void *), const void *arg, size_t n)
{
    auto copy = std::make_shared<std::vector<char>>((const char *)arg, (const char *)arg + n);

    return [=] { run(copy->data()); };
}

void pl_emu_host_work(cudaStream_t s, void (*run)(const void *), const void *arg, size_t n)
{
    pl_emu_queue(s, with_copy(run, arg, n));
}

static stamp put_stamp(pl_emu_stream *s)
{
    stamp t(new pl_emu_stamp{s, false, {}});

    add(s, {[t] {
                clock_gettime(CLOCK_MONOTONIC, &t->at);
                t->there = true;
            },
            nullptr});
    return t;
}

void pl_emu_meet(cudaStream_t from, cudaStream_t to, void (*run)(const void *), const void *arg, size_t n)
{
    lock hold(pl_emu_device);
    stamp sent = put_stamp(from);

    add(to, {with_copy(run, arg, n), sent});
    add(from, {nullptr, put_stamp(to)});
}

/* --- streams --- */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    lock hold(pl_emu_device);

    if (flags != cudaStreamNonBlocking) /* others would have to wait for the default one */
        die("a blocking stream, which is not emulated");
    *s = new pl_emu_stream{pl_emu_gpu(), 0, {}, false, false, false, {}, {}};
    streams.push_back(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    lock hold(pl_emu_device);

    run_until(s, NULL); /* later, on a GPU: nobody can tell */
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t given)
{
    lock hold(pl_emu_device);
    pl_emu_stream *s = real(given);

    if (s->capturing) {
        s->spoilt = true;
        return pl_emu_give(cudaErrorStreamCaptureUnsupported);
    }
    pl_emu_asked.waits++;
    run_until(s, NULL);
    return told(s->gpu);
}

/* Each time one piece more, so that who asks again and again comes to an end. */
cudaError_t cudaStreamQuery(cudaStream_t given)
{
    lock hold(pl_emu_device);
    pl_emu_stream *s = real(given);

    if (s->capturing) {
        s->spoilt = true;
        return pl_emu_give(cudaErrorStreamCaptureUnsupported);
    }
    if (!s->queue.empty())
        go_on(s);
    return s->queue.empty() ? told(s->gpu) : pl_emu_give(cudaErrorNotReady);
}

/* No thread may wait for a GPU while any captures a stream of it, which ends the capture: the programming guide's "Prohibited and Unhandled
 * Operations". */
cudaError_t cudaDeviceSynchronize(void)
{
    lock hold(pl_emu_device);
    cudaError_t e = pl_emu_unsafe();

    for (pl_emu_stream *s : streams)
        if (s->gpu == pl_emu_gpu() && s->capturing) {
            s->spoilt = true;
            e = pl_emu_give(cudaErrorStreamCaptureUnsupported);
        }
    if (e != cudaSuccess)
        return e;
    pl_emu_finish(pl_emu_gpu());
    return told(pl_emu_gpu());
}

/* --- events --- */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    *e = new pl_emu_event{pl_emu_gpu(), !(flags & cudaEventDisableTiming), nullptr};
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    return cudaEventCreateWithFlags(e, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    lock hold(pl_emu_device);

    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t given)
{
    lock hold(pl_emu_device);
    pl_emu_stream *s = real(given);

    if (e->gpu != s->gpu)
        return pl_emu_give(cudaErrorInvalidResourceHandle);
    if (s->capturing)
        die("an event in a graph, which is not emulated");
    e->last = put_stamp(s);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t given, cudaEvent_t e, unsigned)
{
    lock hold(pl_emu_device);
    pl_emu_stream *s = real(given);

    if (!e)
        return pl_emu_give(cudaErrorInvalidResourceHandle);
    if (s->capturing)
        die("an event in a graph, which is not emulated");
    if (e->last)
        add(s, {nullptr, e->last});
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    lock hold(pl_emu_device);
    cudaError_t unsafe = pl_emu_unsafe();

    if (unsafe != cudaSuccess)
        return unsafe;
    if (e->last && !e->last->there)
        run_until(e->last->stream, e->last.get());
    return told(e->gpu);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    lock hold(pl_emu_device);

    if (from->gpu != to->gpu || !from->timed || !to->timed || !from->last || !to->last)
        return pl_emu_give(cudaErrorInvalidResourceHandle);
    if (!from->last->there || !to->last->there)
        return pl_emu_give(cudaErrorNotReady);
    *ms = (float)((double)(to->last->at.tv_sec - from->last->at.tv_sec) * 1e3 + (double)(to->last->at.tv_nsec - from->last->at.tv_nsec) / 1e6);
    return cudaSuccess;
}

/* --- copies --- */
struct shape {
    size_t width, height, pitch_to, pitch_from;

    size_t reach(size_t pitch) const /* from the first byte to behind the last */
    {
        return height && width ? (height - 1) * pitch + width : 0;
    }
};

static void copy_now(void *to, const void *from, const shape &c, enum cudaMemcpyKind kind)
{
    pl_emu_asked.to_device += kind == cudaMemcpyHostToDevice;
    if (kind == cudaMemcpyDeviceToHost) {
        pl_emu_asked.to_host++;
        pl_emu_asked.bytes_to_host += (long)(c.width * c.height);
    }
    for (size_t i = 0; i < c.height && c.width; i++)
        memcpy((char *)to + i * c.pitch_to, (const char *)from + i * c.pitch_from, c.width);
}

static bool fits(void *to, const void *from, const shape &c, enum cudaMemcpyKind kind)
{
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;

    return !c.reach(1) || (pl_emu_owns(-1, to, c.reach(c.pitch_to)) == to_device && pl_emu_owns(-1, from, c.reach(c.pitch_from)) == from_device);
}

/* In the stream's order. Memory of the host's that is not pinned is read before the call returns, and written before it does. */
static cudaError_t copy_later(void *to, const void *from, const shape &c, enum cudaMemcpyKind kind, cudaStream_t given)
{
    lock hold(pl_emu_device);
    pl_emu_stream *s = real(given);
    const void *host = kind == cudaMemcpyHostToDevice ? from : kind == cudaMemcpyDeviceToHost ? to : NULL;
    const bool pageable = host && !pl_emu_pinned(host);

    if (!fits(to, from, c, kind))
        return pl_emu_give(cudaErrorInvalidValue);
    if (pageable && s->capturing) { /* a graph would read and write it at each launch: nobody here wants that */
        s->spoilt = true;
        return pl_emu_give(cudaErrorStreamCaptureUnsupported);
    }
    if (pageable && kind == cudaMemcpyHostToDevice) {
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + c.reach(c.pitch_from));
        return pl_emu_queue(s, [=] { copy_now(to, staged->data(), c, kind); });
    }
    add(s, {[=] { copy_now(to, from, c, kind); }, nullptr, {{(const char *)to, c.reach(c.pitch_to)}, {(const char *)from, c.reach(c.pitch_from)}}});
    if (pageable)
        run_until(s, NULL);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind, cudaStream_t s)
{
    return copy_later(to, from, {n, 1, n, n}, kind, s);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t pitch_to, const void *from, size_t pitch_from, size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t s)
{
    return copy_later(to, from, {width, height, pitch_to, pitch_from}, kind, s);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_gpu, const void *from, int from_gpu, size_t n, cudaStream_t s)
{
    if (!pl_emu_owns(to_gpu, to, n) || !pl_emu_owns(from_gpu, from, n))
        return pl_emu_give(cudaErrorInvalidValue);
    return cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToDevice, s);
}

/* In the default stream, for which the others here do not wait: what comes from memory that is not pinned may still be on its way when the
 * call returns, and so is what goes from device to device. */
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind)
{
    cudaError_t e = pl_emu_unsafe();

    if (e == cudaSuccess)
        e = copy_later(to, from, {n, 1, n, n}, kind, NULL);
    if (e != cudaSuccess || kind == cudaMemcpyDeviceToDevice || (kind == cudaMemcpyHostToDevice && !pl_emu_pinned(from)))
        return e;
    lock hold(pl_emu_device);
    run_until(real(NULL), NULL);
    return told(pl_emu_gpu());
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s)
{
    if (n && !pl_emu_owns(-1, p, n))
        return pl_emu_give(cudaErrorInvalidValue);
    return pl_emu_queue(s, [=] { memset(p, value, n); });
}

cudaError_t cudaMemset(void *p, int value, size_t n)
{
    cudaError_t e = pl_emu_unsafe();

    return e == cudaSuccess ? cudaMemsetAsync(p, value, n, NULL) : e;
}

/* --- graphs --- */
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    lock hold(pl_emu_device);

    if (!s || s->capturing || captures || mode != cudaStreamCaptureModeThreadLocal || pl_emu_refuse_capture == 1 || !pl_emu_number("PACELINE_EMULATED_GRAPHS", 1))
        return pl_emu_give(cudaErrorInvalidValue);
    s->capturing = true;
    s->spoilt = false;
    s->capturer = std::this_thread::get_id();
    captures = s;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    lock hold(pl_emu_device);

    *g = NULL;
    if (!s || !s->capturing)
        return pl_emu_give(cudaErrorInvalidValue);
    if (s->capturer != std::this_thread::get_id())
        return pl_emu_give(cudaErrorStreamCaptureWrongThread);
    s->capturing = false;
    captures = NULL;
    std::vector<pl_emu_work> work;
    work.swap(s->captured);
    if (s->spoilt)
        return pl_emu_give(cudaErrorStreamCaptureInvalidated);
    *g = new pl_emu_graph{std::move(work)};
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long)
{
    if (pl_emu_refuse_capture == 3)
        return pl_emu_give(cudaErrorMemoryAllocation);
    *e = new pl_emu_graph_exec{std::make_shared<std::vector<pl_emu_work>>(g->work)};
    pl_emu_asked.graphs++;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s)
{
    lock hold(pl_emu_device);
    auto work = e->work;

    if (!s || s->gpu != pl_emu_gpu())
        return pl_emu_give(cudaErrorInvalidResourceHandle);
    if (s->capturing)
        die("a graph in a graph, which is not emulated");
    pl_emu_asked.replays++;
    for (size_t i = 0; i < work->size(); i++)
        add(s, {[work, i] { (*work)[i].run(); }, nullptr});
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e)
{
    pl_emu_asked.graphs_gone++;
    delete e;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}
