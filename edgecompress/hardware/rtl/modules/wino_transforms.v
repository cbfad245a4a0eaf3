// B^T d B of one tile, less DROPPED low bits; in the 1x1 mode (bypass) the tile as it is.
// Tiles are flat vectors, element (row, column) at index row*OMEGA + column.
module wino_input_transform #(
    parameter OMEGA = 4,
    parameter INPUT_BITS = 8,
    parameter FULL_BITS = 10,
    parameter DROPPED = 0
) (
    input  wire                                       bypass,
    input  wire [OMEGA*OMEGA*INPUT_BITS-1:0]          tile,
    output reg  [OMEGA*OMEGA*(FULL_BITS-DROPPED)-1:0] values
);
    localparam W = FULL_BITS;
    localparam KEPT = FULL_BITS - DROPPED;

@INPUT_FUNCTION

    reg [OMEGA*W-1:0]       x, y;
    reg [OMEGA*OMEGA*W-1:0] half, full;
    // Signed words extend when they are assigned; dropped bits are not used.
    /* verilator lint_off WIDTH */
    /* verilator lint_off UNUSED */
    always @(*) begin : both_sides
        integer i, j;
        for (j = 0; j < OMEGA; j = j + 1) begin
            for (i = 0; i < OMEGA; i = i + 1)
                x[i*W +: W] = $signed(tile[(i*OMEGA + j)*INPUT_BITS +: INPUT_BITS]);
            y = transform(x);
            for (i = 0; i < OMEGA; i = i + 1) half[(i*OMEGA + j)*W +: W] = y[i*W +: W];
        end
        for (i = 0; i < OMEGA; i = i + 1)
            full[i*OMEGA*W +: OMEGA*W] = transform(half[i*OMEGA*W +: OMEGA*W]);
        for (i = 0; i < OMEGA*OMEGA; i = i + 1)
            if (bypass) values[i*KEPT +: KEPT] = $signed(tile[i*INPUT_BITS +: INPUT_BITS]);
            else values[i*KEPT +: KEPT] = full[i*W + DROPPED +: KEPT];
    end
    /* verilator lint_on UNUSED */
    /* verilator lint_on WIDTH */
endmodule

// G g G^T of one 3x3 kernel in integers, less DROPPED low bits; in the 1x1 mode (bypass) its first
// weight for all multipliers.
module wino_kernel_transform #(
    parameter OMEGA = 4,
    parameter KERNEL_BITS = 8,
    parameter FULL_BITS = 12,
    parameter DROPPED = 0
) (
    input  wire                                       bypass,
    input  wire [9*KERNEL_BITS-1:0]                   kernel,
    output reg  [OMEGA*OMEGA*(FULL_BITS-DROPPED)-1:0] factors
);
    localparam W = FULL_BITS;
    localparam KEPT = FULL_BITS - DROPPED;

@KERNEL_FUNCTION

    reg [3*W-1:0]           x;
    reg [OMEGA*W-1:0]       y;
    reg [OMEGA*3*W-1:0]     half;
    reg [OMEGA*OMEGA*W-1:0] full;
    // Signed words extend when they are assigned; dropped bits are not used.
    /* verilator lint_off WIDTH */
    /* verilator lint_off UNUSED */
    always @(*) begin : both_sides
        integer i, j;
        for (j = 0; j < 3; j = j + 1) begin
            for (i = 0; i < 3; i = i + 1)
                x[i*W +: W] = $signed(kernel[(i*3 + j)*KERNEL_BITS +: KERNEL_BITS]);
            y = transform(x);
            for (i = 0; i < OMEGA; i = i + 1) half[(i*3 + j)*W +: W] = y[i*W +: W];
        end
        for (i = 0; i < OMEGA; i = i + 1)
            full[i*OMEGA*W +: OMEGA*W] = transform(half[i*3*W +: 3*W]);
        for (i = 0; i < OMEGA*OMEGA; i = i + 1)
            if (bypass) factors[i*KEPT +: KEPT] = $signed(kernel[KERNEL_BITS-1:0]);
            else factors[i*KEPT +: KEPT] = full[i*W + DROPPED +: KEPT];
    end
    /* verilator lint_on UNUSED */
    /* verilator lint_on WIDTH */
endmodule

// OMEGA^2 x CHANNELS multipliers, the sum over the channels, and A^T m A of it less DROPPED low
// bits; a clock each. Results are modulo 2^RESULT_BITS; in the 3x3 mode they are the first
// OMEGA - 2 rows and columns, in the 1x1 mode (bypass) the whole sums are the results.
module wino_core #(
    parameter OMEGA = 4,
    parameter CHANNELS = 2,
    parameter VALUE_BITS = 10,
    parameter FACTOR_BITS = 12,
    parameter SUM_BITS = 23,
    parameter DROPPED = 0,
    parameter RESULT_BITS = 26
) (
    input  wire                                        clock,
    input  wire                                        bypass,
    input  wire [CHANNELS*OMEGA*OMEGA*VALUE_BITS-1:0]  values,
    input  wire [CHANNELS*OMEGA*OMEGA*FACTOR_BITS-1:0] factors,
    output reg  [OMEGA*OMEGA*RESULT_BITS-1:0]          results
);
    localparam TILE = OMEGA*OMEGA;
    localparam SIDE = OMEGA - 2;
    localparam PRODUCT_BITS = VALUE_BITS + FACTOR_BITS;
    localparam W = RESULT_BITS;

@OUTPUT_FUNCTION

    // Signed words extend when they are assigned or multiplied; what is dropped is not used.
    /* verilator lint_off WIDTH */
    /* verilator lint_off UNUSED */
    reg signed [PRODUCT_BITS-1:0]         product;
    reg signed [SUM_BITS-1:0]               sum;
    reg [CHANNELS*TILE*PRODUCT_BITS-1:0]    next_products, products;
    reg [TILE*SUM_BITS-1:0]                 next_sums, sums;
    reg [OMEGA*W-1:0]                       x;
    reg [SIDE*W-1:0]                        y;
    reg [SIDE*OMEGA*W-1:0]                  half;
    reg [TILE*W-1:0]                        next_results;
    always @(*) begin : multiply
        integer i;
        for (i = 0; i < CHANNELS*TILE; i = i + 1) begin
            product = $signed(values[i*VALUE_BITS +: VALUE_BITS])
                    * $signed(factors[i*FACTOR_BITS +: FACTOR_BITS]);
            next_products[i*PRODUCT_BITS +: PRODUCT_BITS] = product;
        end
    end

    always @(*) begin : add
        integer i, c;
        for (i = 0; i < TILE; i = i + 1) begin
            sum = $signed(products[i*PRODUCT_BITS +: PRODUCT_BITS]);
            for (c = 1; c < CHANNELS; c = c + 1)
                sum = sum + $signed(products[(c*TILE + i)*PRODUCT_BITS +: PRODUCT_BITS]);
            next_sums[i*SUM_BITS +: SUM_BITS] = sum;
        end
    end

    always @(*) begin : both_sides
        integer i, j;
        next_results = {(TILE*W){1'b0}};
        for (j = 0; j < OMEGA; j = j + 1) begin
            for (i = 0; i < OMEGA; i = i + 1)
                x[i*W +: W] =
                    $signed(sums[(i*OMEGA + j)*SUM_BITS + DROPPED +: SUM_BITS - DROPPED]);
            y = transform(x);
            for (i = 0; i < SIDE; i = i + 1) half[(i*OMEGA + j)*W +: W] = y[i*W +: W];
        end
        for (i = 0; i < SIDE; i = i + 1)
            next_results[i*OMEGA*W +: SIDE*W] = transform(half[i*OMEGA*W +: OMEGA*W]);
        if (bypass)
            for (i = 0; i < TILE; i = i + 1)
                next_results[i*W +: W] = $signed(sums[i*SUM_BITS +: SUM_BITS]);
    end
    /* verilator lint_on UNUSED */
    /* verilator lint_on WIDTH */

    always @(posedge clock) begin
        products <= next_products;
        sums     <= next_sums;
        results  <= next_results;
    end
endmodule
