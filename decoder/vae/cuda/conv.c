//  Convolutions through cuDNN's graph interface: what is asked for, as a graph of one
//  convolution and the pointwise operations after it.

#include "decoder/vae/cuda/conv.h"

#include <stdlib.h>
#include <string.h>

enum { ID_X = 1, ID_WEIGHT, ID_BIAS, ID_RESIDUAL, ID_Y, ID_VIRTUAL = 10 };

//  Descriptors that belong to one graph; freed together.
typedef struct bag {
    gpu_desc item[24];
    size_t count;
    cudnnStatus_t status;  //  the first failure turns later calls into nothing
} bag;

static gpu_desc make(bag *b, cudnnBackendDescriptorType_t type)
{
    gpu_desc d = NULL;
    if (b->status == CUDNN_STATUS_SUCCESS)
        b->status = cudnnBackendCreateDescriptor(type, &d);
    if (b->status != CUDNN_STATUS_SUCCESS) return NULL;
    return b->item[b->count++] = d;
}

static void set(bag *b, gpu_desc d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (b->status == CUDNN_STATUS_SUCCESS)
        b->status = cudnnBackendSetAttribute(d, name, type, count, values);
}

static void set_desc(bag *b, gpu_desc d, cudnnBackendAttributeName_t name, gpu_desc value)
{
    set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_int(bag *b, gpu_desc d, cudnnBackendAttributeName_t name, int64_t value)
{
    set(b, d, name, CUDNN_TYPE_INT64, 1, &value);
}

static void set_type(bag *b, gpu_desc d, cudnnBackendAttributeName_t name,
                     cudnnDataType_t type)
{
    set(b, d, name, CUDNN_TYPE_DATA_TYPE, 1, &type);
}

static gpu_desc end(bag *b, gpu_desc d)
{
    if (b->status == CUDNN_STATUS_SUCCESS) b->status = cudnnBackendFinalize(d);
    return d;
}

static cudnnDataType_t type_of(gpu_type type)
{
    if (type == GPU_FP16) return CUDNN_DATA_HALF;
    return type == GPU_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

//  [count, channels, height, width] with channels next to each other.
static gpu_desc tensor(bag *b, int64_t id, cudnnDataType_t type, const int64_t size[4])
{
    gpu_desc d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t c = size[1], h = size[2], w = size[3];
    const int64_t strides[4] = {h * w * c, 1, w * c, c};
    const bool is_virtual = id >= ID_VIRTUAL;
    set_type(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, size);
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set_int(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    set_int(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
    set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    return end(b, d);
}

static gpu_desc convolution(bag *b, const gpu_conv_problem *p)
{
    gpu_desc d = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t pad = p->folded ? 1 : p->kernel / 2, stride = p->folded ? 2 : 1;
    const int64_t pads[2] = {pad, pad}, strides[2] = {stride, stride}, ones[2] = {1, 1};
    set_int(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2);
    set_type(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    return end(b, d);
}

//  alpha and beta of 1 and 0.
static void set_blend(bag *b, gpu_desc d, cudnnBackendAttributeName_t alpha,
                      cudnnBackendAttributeName_t beta)
{
    const float one = 1.0F, zero = 0.0F;
    set(b, d, alpha, CUDNN_TYPE_FLOAT, 1, &one);
    set(b, d, beta, CUDNN_TYPE_FLOAT, 1, &zero);
}

static gpu_desc forward(bag *b, gpu_desc conv, gpu_desc x, gpu_desc w, gpu_desc y)
{
    gpu_desc d = make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv);
    set_blend(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA);
    return end(b, d);
}

//  The gradient of a strided convolution by its input is the transposed convolution.
static gpu_desc transposed(bag *b, gpu_desc conv, gpu_desc x, gpu_desc w, gpu_desc y)
{
    gpu_desc d = make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR);
    set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, y);
    set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, w);
    set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, x);
    set_desc(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, conv);
    set_blend(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA);
    return end(b, d);
}

//  y = x + other, or max(x, 0) when there is no other.
static gpu_desc pointwise(bag *b, gpu_desc x, gpu_desc other, gpu_desc y)
{
    gpu_desc mode = make(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    const cudnnPointwiseMode_t which =
        other ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_RELU_FWD;
    set(b, mode, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &which);
    set_type(b, mode, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    end(b, mode);
    gpu_desc d = make(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_desc(b, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, mode);
    set_desc(b, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (other) set_desc(b, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, other);
    set_desc(b, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    return end(b, d);
}

typedef struct shape_set {
    int64_t x[4];
    int64_t w[4];
    int64_t y[4];
    int64_t bias[4];
} shape_set;

static shape_set sizes_of(const gpu_conv_problem *p)
{
    const int64_t in = p->from.channels, out = p->channels, k = p->kernel;
    const int64_t h = p->from.height, w = p->from.width, grow = p->folded ? 2 : 1;
    return (shape_set){.x = {1, in, h, w},
                       .w = {p->folded ? in : out, p->folded ? out : in, k, k},
                       .y = {1, out, grow * h, grow * w},
                       .bias = {1, out, 1, 1}};
}

//  The operations after the convolution, in their order; the last one stores.
typedef struct chain {
    bag *bag;
    const shape_set *sizes;
    gpu_desc ops[4];
    int count;
    int left;      //  operations still to come
    int64_t next;  //  id of the next virtual tensor
    cudnnDataType_t type;
} chain;

static gpu_desc result(chain *c)
{
    c->left--;
    const bool stored = c->left == 0;
    return tensor(c->bag, stored ? ID_Y : c->next++, stored ? c->type : CUDNN_DATA_FLOAT,
                  c->sizes->y);
}

static gpu_desc add_pointwise(chain *c, gpu_desc x, gpu_desc other)
{
    gpu_desc y = result(c);
    c->ops[c->count++] = pointwise(c->bag, x, other, y);
    return y;
}

static void build_ops(bag *b, const gpu_conv_problem *p, chain *c)
{
    const shape_set sizes = sizes_of(p);
    const cudnnDataType_t type = type_of(p->from.type);
    *c = (chain){.bag = b,
                 .sizes = &sizes,
                 .left = 1 + p->bias + p->residual + p->relu,
                 .next = ID_VIRTUAL,
                 .type = type};
    gpu_desc x = tensor(b, ID_X, type, sizes.x), w = tensor(b, ID_WEIGHT, type, sizes.w);
    gpu_desc y = result(c), conv = convolution(b, p);
    c->ops[c->count++] =
        p->folded ? transposed(b, conv, x, w, y) : forward(b, conv, x, w, y);
    if (p->bias)
        y = add_pointwise(c, y, tensor(b, ID_BIAS, CUDNN_DATA_FLOAT, sizes.bias));
    if (p->residual) y = add_pointwise(c, y, tensor(b, ID_RESIDUAL, type, sizes.y));
    if (p->relu) add_pointwise(c, y, NULL);
}

struct gpu_conv_graph {
    bag bag;
    gpu_desc graph;
};

luna_err gpu_conv_graph_make(gpu_device *device, const gpu_conv_problem *problem,
                             gpu_conv_graph **out)
{
    gpu_conv_graph *g = calloc(1, sizeof *g);
    chain c;
    if (!g) return luna_error(LUNA_NO_MEMORY, "no memory for a convolution");
    build_ops(&g->bag, problem, &c);
    g->graph = make(&g->bag, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(&g->bag, g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
        c.count, c.ops);
    set(&g->bag, g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
        &device->dnn);
    end(&g->bag, g->graph);
    if (g->bag.status == CUDNN_STATUS_SUCCESS) {
        *out = g;
        return LUNA_OK;
    }
    const cudnnStatus_t status = g->bag.status;
    gpu_conv_graph_free(g);
    return luna_error(LUNA_UNSUPPORTED, "cuDNN has no such convolution: %s",
                      cudnnGetErrorString(status));
}

gpu_desc gpu_conv_graph_desc(const gpu_conv_graph *graph)
{
    return graph->graph;
}

void gpu_conv_graph_free(gpu_conv_graph *graph)
{
    if (!graph) return;
    while (graph->bag.count > 0)
        (void)cudnnBackendDestroyDescriptor(graph->bag.item[--graph->bag.count]);
    free(graph);
}

static cudnnStatus_t execute(gpu_device *device, const gpu_conv *conv, gpu_desc pack,
                             const gpu_conv_call *call)
{
    bag b = {.status = CUDNN_STATUS_SUCCESS};
    void *pointers[5];
    int64_t ids[5], count = 0;
    const void *all[5] = {call->x, call->weight, conv->problem.bias ? call->bias : NULL,
                          conv->problem.residual ? call->residual : NULL, call->y};
    for (int i = 0; i < 5; i++) {
        if (!all[i]) continue;
        pointers[count] = (void *)(uintptr_t)all[i];
        ids[count++] = ID_X + i;
    }
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count,
        pointers);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
        &device->workspace);
    end(&b, pack);
    if (b.status != CUDNN_STATUS_SUCCESS) return b.status;
    return cudnnBackendExecute(device->dnn, conv->plan, pack);
}

luna_err gpu_conv_run(gpu_device *device, const gpu_conv *conv, const gpu_conv_call *call)
{
    gpu_desc pack = NULL;
    cudnnStatus_t status =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (status == CUDNN_STATUS_SUCCESS) status = execute(device, conv, pack, call);
    if (pack) (void)cudnnBackendDestroyDescriptor(pack);
    return gpu_check_dnn(status, "a convolution");
}
