/* Clips by FFmpeg's libraries, from memory: nothing that a file names is opened. */
#include "model/video_impl.h"

#if PL_HAVE_FFMPEG
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

#include <stdio.h>
#include <string.h>

#define IO_BUFFER 32768

struct bytes {
    const uint8_t *data;
    int64_t len, at;
};

/* An open clip. */
struct clip {
    const char *name;
    struct bytes bytes;
    AVFormatContext *format;
    AVIOContext *io;
    int stream;
    struct pl_err *err;
};

struct decoder {
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    struct SwsContext *scale;
};

static int read_bytes(void *user, uint8_t *buf, int size)
{
    struct bytes *b = user;
    int64_t left = b->len - b->at;

    if (left <= 0)
        return AVERROR_EOF;
    if (size > left)
        size = (int)left;
    memcpy(buf, b->data + b->at, (size_t)size);
    b->at += size;
    return size;
}

static int64_t seek_bytes(void *user, int64_t offset, int whence)
{
    struct bytes *b = user;

    if (whence & AVSEEK_SIZE)
        return b->len;
    whence &= ~AVSEEK_FORCE;
    if (whence == SEEK_CUR)
        offset += b->at;
    else if (whence == SEEK_END)
        offset += b->len;
    else if (whence != SEEK_SET)
        return AVERROR(EINVAL);
    if (offset < 0 || offset > b->len)
        return AVERROR(EINVAL);
    b->at = offset;
    return offset;
}

static int refuse_open(AVFormatContext *s, AVIOContext **io, const char *url, int flags,
                       AVDictionary **options)
{
    (void)s;
    (void)io;
    (void)url;
    (void)flags;
    (void)options;
    return AVERROR(EPERM);
}

static enum pl_status bad(const struct clip *c, const char *what, int rc)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";

    av_strerror(rc, text, sizeof(text));
    return pl_fail(c->err, rc == AVERROR(ENOMEM) ? PL_ENOMEM : PL_EFORMAT, "%s: %s: %s", c->name,
                   what, text);
}

static void close_clip(struct clip *c)
{
    avformat_close_input(&c->format);
    if (c->io)
        av_freep(&c->io->buffer);
    avio_context_free(&c->io);
}

static enum pl_status open_clip(struct clip *c)
{
    uint8_t *buffer = av_malloc(IO_BUFFER);
    const AVCodecParameters *p;
    int rc;

    c->bytes.at = 0;
    c->io = buffer
                ? avio_alloc_context(buffer, IO_BUFFER, 0, &c->bytes, read_bytes, NULL, seek_bytes)
                : NULL;
    c->format = avformat_alloc_context();
    if (!c->io || !c->format) {
        if (!c->io)
            av_free(buffer);
        return pl_fail(c->err, PL_ENOMEM, "%s: no memory", c->name);
    }
    c->format->pb = c->io;
    c->format->io_open = refuse_open;
    c->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    rc = avformat_open_input(&c->format, "", NULL, NULL);
    if (rc < 0)
        return bad(c, "not a clip that can be read", rc);
    c->stream = av_find_best_stream(c->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    p = c->stream < 0 ? NULL : c->format->streams[c->stream]->codecpar;
    if (p && p->codec_id != AV_CODEC_ID_NONE && p->width > 0)
        return PL_OK; /* the header says it all: nothing need be decoded to find out */
    rc = avformat_find_stream_info(c->format, NULL);
    if (rc < 0)
        return bad(c, "not a clip that can be read", rc);
    c->stream = av_find_best_stream(c->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (c->stream < 0)
        return pl_fail(c->err, PL_EFORMAT, "%s: it has no video stream", c->name);
    return PL_OK;
}

/* Frames that are shown: packets that an edit list does not discard. */
static enum pl_status count_frames(struct clip *c, AVPacket *packet, int64_t *total)
{
    int rc;

    *total = 0;
    while ((rc = av_read_frame(c->format, packet)) >= 0) {
        if (packet->stream_index == c->stream && !(packet->flags & AV_PKT_FLAG_DISCARD))
            ++*total;
        av_packet_unref(packet);
        if (*total > PL_VIDEO_MAX_FRAMES)
            return pl_fail(c->err, PL_ERANGE, "%s: more than %d frames", c->name,
                           PL_VIDEO_MAX_FRAMES);
    }
    if (*total == 0)
        return pl_fail(c->err, PL_EFORMAT, "%s: its video stream has no frames", c->name);
    return PL_OK;
}

static enum pl_status open_decoder(struct clip *c, struct decoder *d)
{
    const AVCodecParameters *p = c->format->streams[c->stream]->codecpar;
    const AVCodec *codec = avcodec_find_decoder(p->codec_id);
    int rc;

    if (!codec)
        return pl_fail(c->err, PL_EUNSUPPORTED, "%s: this FFmpeg has no decoder for %s", c->name,
                       avcodec_get_name(p->codec_id));
    d->codec = avcodec_alloc_context3(codec);
    if (!d->codec)
        return pl_fail(c->err, PL_ENOMEM, "%s: no memory", c->name);
    rc = avcodec_parameters_to_context(d->codec, p);
    d->codec->max_pixels = PL_IMAGE_MAX_PIXELS;
    d->codec->thread_count = 1; /* the runner's cores are counted */
    if (rc >= 0)
        rc = avcodec_open2(d->codec, codec, NULL);
    return rc < 0 ? bad(c, "the decoder cannot be opened", rc) : PL_OK;
}

static enum pl_status convert(struct clip *c, struct decoder *d, struct pl_images *append)
{
    const AVFrame *f = d->frame;
    struct pl_image *image;
    enum pl_status st = pl_images_add(append, f->width, f->height, &image, c->err);
    int full = f->color_range == AVCOL_RANGE_JPEG, rc;

    if (st)
        return pl_err_prefix(c->err, st, "%s", c->name);
    d->scale =
        sws_getCachedContext(d->scale, f->width, f->height, (enum AVPixelFormat)f->format, f->width,
                             f->height, AV_PIX_FMT_RGB24, SWS_BILINEAR, NULL, NULL, NULL);
    if (!d->scale)
        return pl_fail(c->err, PL_EUNSUPPORTED, "%s: pixels of type %s cannot be made RGB", c->name,
                       av_get_pix_fmt_name((enum AVPixelFormat)f->format));
    /* refused for RGB and grey: nothing to convert by a matrix there */
    (void)sws_setColorspaceDetails(d->scale, sws_getCoefficients((int)f->colorspace), full,
                                   sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    uint8_t *to[4] = {image->rgb, NULL, NULL, NULL};
    const int pitch[4] = {image->width * 3, 0, 0, 0};
    rc = sws_scale(d->scale, (const uint8_t *const *)f->data, f->linesize, 0, f->height, to, pitch);
    return rc < 0 ? bad(c, "a frame cannot be made RGB", rc) : PL_OK;
}

/* Frames as they are shown, until the last that is wanted. */
static enum pl_status decode_frames(struct clip *c, struct decoder *d, int64_t total, size_t n,
                                    struct pl_images *append)
{
    size_t want = n && (int64_t)n < total ? n : (size_t)total, got = 0;
    int64_t shown = 0;
    bool end = false;
    enum pl_status st = PL_OK;
    int rc;

    while (got < want) {
        rc = avcodec_receive_frame(d->codec, d->frame);
        if (rc >= 0) {
            if (pl_video_wanted(shown++, total, n)) {
                st = convert(c, d, append);
                got++;
            }
            av_frame_unref(d->frame);
            if (st)
                return st;
            continue;
        }
        if (rc != AVERROR(EAGAIN) || end)
            return pl_fail(c->err, PL_EFORMAT,
                           "%s: the clip has %lld frames, %lld of them can be decoded", c->name,
                           (long long)total, (long long)shown);
        while ((rc = av_read_frame(c->format, d->packet)) >= 0 &&
               d->packet->stream_index != c->stream)
            av_packet_unref(d->packet);
        end = rc < 0;
        rc = avcodec_send_packet(d->codec, end ? NULL : d->packet);
        av_packet_unref(d->packet);
        if (rc < 0 && rc != AVERROR_EOF)
            return bad(c, "a frame cannot be decoded", rc);
    }
    return PL_OK;
}

static void fill_info(const struct clip *c, const struct decoder *d, int64_t total,
                      struct pl_video_info *info)
{
    const AVStream *s = c->format->streams[c->stream];
    const char *type = av_get_pix_fmt_name(d->codec->pix_fmt);

    *info = (struct pl_video_info){
        .frames = total, .width = d->codec->width, .height = d->codec->height};
    if (s->avg_frame_rate.num > 0 && s->avg_frame_rate.den > 0)
        info->fps = av_q2d(s->avg_frame_rate);
    if (s->duration > 0 && s->duration != AV_NOPTS_VALUE)
        info->seconds = (double)s->duration * av_q2d(s->time_base);
    snprintf(info->codec, sizeof(info->codec), "%s", avcodec_get_name(d->codec->codec_id));
    snprintf(info->pixel_type, sizeof(info->pixel_type), "%s", type ? type : "unknown");
}

enum pl_status pl_video_decode(const char *name, const void *data, size_t len, size_t n,
                               struct pl_images *append, struct pl_video_info *info,
                               struct pl_err *err)
{
    struct clip c = {.name = name, .bytes = {.data = data, .len = (int64_t)len}, .err = err};
    struct decoder d = {.packet = av_packet_alloc(), .frame = av_frame_alloc()};
    int64_t total = 0;
    enum pl_status st;

    av_log_set_level(AV_LOG_QUIET);
    if (!d.packet || !d.frame)
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", name);
    else
        st = open_clip(&c);
    if (!st)
        st = count_frames(&c, d.packet, &total);
    if (!st) {
        close_clip(&c);
        st = open_clip(&c);
    }
    if (!st)
        st = open_decoder(&c, &d);
    if (!st)
        st = decode_frames(&c, &d, total, n, append);
    if (!st)
        fill_info(&c, &d, total, info);
    sws_freeContext(d.scale);
    avcodec_free_context(&d.codec);
    av_packet_free(&d.packet);
    av_frame_free(&d.frame);
    close_clip(&c);
    return st;
}

const char *pl_video_version(void)
{
    return "libavformat " AV_STRINGIFY(LIBAVFORMAT_VERSION);
}
#else
enum pl_status pl_video_decode(const char *name, const void *data, size_t len, size_t n,
                               struct pl_images *append, struct pl_video_info *info,
                               struct pl_err *err)
{
    (void)data;
    (void)len;
    (void)n;
    (void)append;
    (void)info;
    return pl_fail(err, PL_EUNSUPPORTED, PL_VIDEO_NONE, name);
}

const char *pl_video_version(void)
{
    return NULL;
}
#endif
